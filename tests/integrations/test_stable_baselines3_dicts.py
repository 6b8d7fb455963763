"""Our extractor and callback inside real models with ``MultiInputPolicy``: an image with vectors beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from curl_rl.encoders import EncoderConfig

pytest.importorskip("stable_baselines3")
from stable_baselines3 import PPO, SAC

from curl_rl.integrations.stable_baselines3 import ContrastiveCallback, CurlFeaturesExtractor

SIDE = 36
SPACE = gymnasium.spaces.Dict(
    joints=gymnasium.spaces.Box(-1, 1, (2, 2), np.float32),
    camera=gymnasium.spaces.Box(0, 255, (3, SIDE, SIDE), np.uint8),
    tool=gymnasium.spaces.Discrete(3),
)


class Robot(gymnasium.Env):
    """Random observations."""

    observation_space = SPACE
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self.seen(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return self.seen(), float(action[0]), False, self.steps == 8, {}

    def seen(self) -> dict[str, Any]:
        camera = self.np_random.integers(0, 256, (3, SIDE, SIDE)).astype(np.uint8)
        joints = self.np_random.uniform(-1, 1, (2, 2)).astype(np.float32)
        return {"joints": joints, "camera": camera, "tool": np.int64(self.np_random.integers(3))}


POLICY: dict[str, Any] = {
    "features_extractor_class": CurlFeaturesExtractor,
    "features_extractor_kwargs": {"crop": 32, "config": EncoderConfig(filters=8, strides=(2, 2), latent=4)},
    "net_arch": [8],
}


def sac() -> SAC:
    how: dict[str, Any] = {"buffer_size": 64, "learning_starts": 10, "batch_size": 4, "seed": 0, "device": "cpu"}
    return SAC("MultiInputPolicy", Robot(), policy_kwargs={**POLICY}, **how)


def ppo() -> PPO:
    how: dict[str, Any] = {"n_steps": 12, "batch_size": 6, "n_epochs": 1, "seed": 0, "device": "cpu"}
    return PPO("MultiInputPolicy", Robot(), policy_kwargs={**POLICY}, **how)


def observations(count: int) -> dict[str, np.ndarray]:
    SPACE.seed(3)
    drawn = [SPACE.sample() for _ in range(count)]
    return {name: np.stack([one[name] for one in drawn]) for name in SPACE.spaces}


@pytest.mark.parametrize("make", [sac, ppo])
def test_features_are_the_encoders_followed_by_the_vectors(make: Any) -> None:
    model, seen = make(), observations(2)
    tensors, _ = model.policy.obs_to_tensor(seen)
    extractor = next(part for part in model.policy.modules() if isinstance(part, CurlFeaturesExtractor))
    features = model.policy.extract_features(tensors, extractor)
    assert features.shape == (2, extractor.features_dim) == (2, 4 + 4 + 3)
    pixels = torch.as_tensor(seen["camera"])[:, :, 2:-2, 2:-2]
    beside = {"joints": seen["joints"].reshape(2, 4), "tool": np.eye(3)[seen["tool"]]}
    expected = [extractor.encoder(pixels), *(torch.as_tensor(beside[name]) for name in SPACE.spaces if name in beside)]
    torch.testing.assert_close(features, torch.cat(expected, 1).float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("make", "steps"), [(sac, 14), (ppo, 24)])
def test_the_callback_learns_from_the_images_and_the_model_is_saved_and_loaded(
    make: Any, steps: int, tmp_path: Path
) -> None:
    model, callback, seen = make(), ContrastiveCallback(batch_size=4), []
    train = callback._train
    callback._train = lambda images: seen.append(images) or train(images)  # type: ignore[func-returns-value, method-assign]
    model.learn(24, callback=callback)
    assert callback.steps == steps
    assert {(tuple(images.shape), images.dtype) for images in seen} == {((4, 3, SIDE, SIDE), torch.uint8)}
    model.save(tmp_path / "model")
    loaded = type(model).load(tmp_path / "model")
    actions = [one.predict(observations(3), deterministic=True)[0] for one in (model, loaded)]
    np.testing.assert_array_equal(*actions)


@pytest.mark.parametrize("images", [(), ("left", "right")])
def test_a_dict_without_an_image_or_with_several_is_refused(images: tuple[str, ...]) -> None:
    space = gymnasium.spaces.Dict({"joints": SPACE["joints"], **dict.fromkeys(images, SPACE["camera"])})
    with pytest.raises(ValueError, match=r"^observation_space must hold one image \(C, H, W\) and vectors, got Dict"):
        CurlFeaturesExtractor(space)
