"""The TensorDictModule, alone and in front of a TorchRL head, compared with direct calls of the encoder."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from torch import nn

from curl_rl.encoders import EncoderConfig, PixelEncoder

pytest.importorskip("tensordict")
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictSequential

from curl_rl.artifacts.pretrained import PretrainedEncoder
from curl_rl.integrations.torchrl import encoder_module


@pytest.fixture
def encoder() -> PixelEncoder:
    torch.manual_seed(0)
    return PixelEncoder((2, 9, 9), EncoderConfig(filters=8, strides=(2, 1), latent=5))


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_any_batch_size(encoder: PixelEncoder, batch: tuple[int, ...]) -> None:
    pixels = torch.randint(256, (*batch, 2, 9, 9), dtype=torch.uint8)
    out = encoder_module(encoder)(TensorDict({"pixels": pixels}, batch))
    assert out["features"].shape == (*batch, 5)
    for one, features in zip(pixels.view(-1, 2, 9, 9), out["features"].view(-1, 5), strict=True):
        torch.testing.assert_close(features, encoder(one[None] / 255)[0], rtol=1e-4, atol=1e-5)


def test_keys_gradients_and_a_head_behind(encoder: PixelEncoder) -> None:
    module = encoder_module(encoder, in_key=("agent", "pixels"), out_key="hidden")
    head = TensorDictModule(nn.Linear(5, 2), in_keys=["hidden"], out_keys=["action"])
    data = TensorDict({"agent": {"pixels": torch.rand(4, 2, 9, 9)}}, [4])
    TensorDictSequential(module, head)(data)["action"].sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())
    assert {id(p) for p in module.parameters()} == {id(p) for p in encoder.parameters()}


def test_policy_acts_in_a_torchrl_environment(encoder: PixelEncoder) -> None:
    torchrl_envs = pytest.importorskip("torchrl.envs")

    class Noise(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(0, 255, (2, 9, 9), np.uint8)
        action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

        def reset(self, *, seed: int | None = None, options: object = None) -> tuple[object, dict[str, object]]:
            super().reset(seed=seed)
            return self.observation_space.sample(), {}

        def step(self, action: object) -> tuple[object, float, bool, bool, dict[str, object]]:
            return self.observation_space.sample(), 0.0, False, False, {}

    policy = TensorDictSequential(
        encoder_module(encoder, in_key="observation"),
        TensorDictModule(nn.Sequential(nn.Linear(5, 2), nn.Tanh()), in_keys=["features"], out_keys=["action"]),
    )
    rollout = torchrl_envs.GymWrapper(Noise()).rollout(3, policy)
    torch.testing.assert_close(rollout["features"], encoder(rollout["observation"]), rtol=1e-4, atol=1e-5)


def test_input_other_than_images_is_refused(encoder: PixelEncoder) -> None:
    with pytest.raises(ValueError, match=r"expected images \(..., C, H, W\), got \(4, 9\)"):
        encoder_module(encoder)(TensorDict({"pixels": torch.rand(4, 9)}, [4]))


def test_a_pretrained_encoder_takes_pixels_as_environments_return_them(encoder: PixelEncoder) -> None:
    pixels = torch.randint(256, (3, 4, 11, 10, 2), dtype=torch.uint8)  # channels last, larger than the crop
    out = encoder_module(PretrainedEncoder(encoder, 9, {}))(TensorDict({"pixels": pixels}, [3, 4]))
    middle = pixels[..., 1:10, 0:9, :].permute(0, 1, 4, 2, 3).reshape(12, 2, 9, 9)
    torch.testing.assert_close(out["features"].view(12, 5), encoder(middle), rtol=1e-4, atol=1e-5)
