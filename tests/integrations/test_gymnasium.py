"""The wrappers on tiny environments, compared with direct calls of the encoder."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from torch import nn

from curl_rl.artifacts.pretrained import PretrainedEncoder
from curl_rl.encoders import EncoderConfig, PixelEncoder
from curl_rl.integrations.gymnasium import FeatureObservation, VectorFeatureObservation

_BYTES = gymnasium.spaces.Box(0, 255, (2, 9, 9), np.uint8)


class _Noise(gymnasium.Env[Any, Any]):
    """Random images; an episode has three steps."""

    def __init__(self, space: gymnasium.spaces.Box = _BYTES) -> None:
        self.observation_space = space
        self.action_space = gymnasium.spaces.Discrete(2)
        self.steps = 0

    def _image(self) -> np.ndarray:
        shape = self.observation_space.shape
        if self.observation_space.dtype == np.uint8:
            return self.np_random.integers(0, 256, shape, np.uint8)
        return self.np_random.random(shape).astype(self.observation_space.dtype)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self._image(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return self._image(), 0.0, False, self.steps == 3, {}


@pytest.fixture
def encoder() -> PixelEncoder:
    torch.manual_seed(0)
    return PixelEncoder((2, 9, 9), EncoderConfig(filters=8, strides=(2, 1), latent=5))


def _box(low: float, high: float, shape: tuple[int, ...], dtype: Any) -> gymnasium.spaces.Box:
    return gymnasium.spaces.Box(low, high, shape, dtype)


@pytest.mark.parametrize(
    ("space", "channels_last"),
    [
        (_BYTES, False),
        (_box(0, 255, (9, 9, 2), np.uint8), True),
        (_box(0, 1, (2, 9, 9), np.float32), False),
        (_box(0, 1, (9, 9, 2), np.float64), True),
    ],
)
def test_features_are_those_of_the_image(
    encoder: PixelEncoder, space: gymnasium.spaces.Box, channels_last: bool
) -> None:
    plain, wrapped = _Noise(space), FeatureObservation(_Noise(space), encoder, channels_last=channels_last)
    image, _ = plain.reset(seed=3)
    features, _ = wrapped.reset(seed=3)
    for _ in range(3):
        unit = image / 255 if image.dtype == np.uint8 else image
        picture = np.moveaxis(unit, -1, 0) if channels_last else unit
        expected = encoder(torch.as_tensor(np.ascontiguousarray(picture), dtype=torch.float32)[None])[0]
        np.testing.assert_allclose(features, expected.detach().numpy(), rtol=1e-4, atol=1e-5)
        assert features in wrapped.observation_space
        image, features = plain.step(0)[0], wrapped.step(0)[0]


def test_gymnasiums_checker_passes(encoder: PixelEncoder) -> None:
    with pytest.warns(UserWarning, match="infinity"):  # features have no bounds
        check_env(FeatureObservation(_Noise(), encoder), skip_render_check=True)


def test_vector_environment_returns_one_row_per_environment(encoder: PixelEncoder) -> None:
    calls: list[int] = []
    encoder.register_forward_hook(lambda module, inputs, output: calls.append(len(inputs[0])))
    wrapped = VectorFeatureObservation(gymnasium.vector.SyncVectorEnv([_Noise] * 3), encoder)
    single = FeatureObservation(_Noise(), encoder)
    calls.clear()
    features, _ = wrapped.reset(seed=[5, 6, 7])  # type: ignore[arg-type]  # the type in gymnasium's wrapper omits lists
    assert calls == [3], "one pass for all"
    assert features in wrapped.observation_space
    for seed, row in zip([5, 6, 7], features, strict=True):
        np.testing.assert_allclose(row, single.reset(seed=seed)[0], rtol=1e-4, atol=1e-5)
    kept = features.copy()
    wrapped.step(np.zeros(3, int))
    np.testing.assert_array_equal(features, kept)
    wrapped.close()


def test_encoder_is_in_evaluation_mode_and_takes_no_gradient() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(162, 4))
    wrapped = FeatureObservation(_Noise(), _Scaled(network))
    np.testing.assert_array_equal(wrapped.reset(seed=1)[0], wrapped.reset(seed=1)[0])


def test_the_callers_encoder_is_not_changed() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(162, 4), nn.BatchNorm1d(4))
    network[3].eval()  # mixed modes, which a single train() call would not restore
    wrapped = FeatureObservation(_Noise(), _Scaled(network))
    before = wrapped.reset(seed=1)[0]
    assert [part.training for part in network] == [True, True, True, False]
    with torch.no_grad():
        network[2].weight.mul_(2)
    assert not np.array_equal(wrapped.reset(seed=1)[0], before), "the features follow"

    loaded = _pretrained(freeze=False)
    FeatureObservation(_Still(np.zeros((6, 9, 9), np.uint8)), loaded).reset()
    assert loaded.training
    assert loaded.encoder.training


class _Scaled(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert not torch.is_grad_enabled()
        return self.network(images / 255)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (_box(0, 255, (9, 9), np.uint8), "observations must be images"),
        (_box(0, 255, (2, 9, 9), np.int64), "observations must be images"),
        (_box(0, 255, (2, 9, 9), np.float32), r"must lie in \[0, 1\]"),
        (_box(0, 255, (3, 9, 9), np.uint8), "images must have shape"),
    ],
)
def test_other_observations_are_refused(encoder: PixelEncoder, space: gymnasium.spaces.Box, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FeatureObservation(_Noise(space), encoder)


def test_map_instead_of_vector_is_refused() -> None:
    with pytest.raises(ValueError, match=r"encoder _Scaled must return \(B, D\), got \(1, 2, 9, 9\)"):
        FeatureObservation(_Noise(), _Scaled(nn.Conv2d(2, 2, 1)))


def test_vector_environment_that_resets_within_the_step_is_refused(encoder: PixelEncoder) -> None:
    same_step = gymnasium.vector.AutoresetMode.SAME_STEP
    with pytest.raises(ValueError, match="NEXT_STEP"):
        VectorFeatureObservation(gymnasium.vector.SyncVectorEnv([_Noise], autoreset_mode=same_step), encoder)


# ---- order and scale of a pretrained encoder


def _pretrained(**options: object) -> PretrainedEncoder:
    torch.manual_seed(0)
    encoder = PixelEncoder((6, 9, 9), EncoderConfig(filters=4, strides=(2,), latent=5))
    options.setdefault("freeze", True)
    return PretrainedEncoder(encoder, 9, {}, **options)  # type: ignore[arg-type]


class _Still(gymnasium.Env):
    """A constant image."""

    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, picture: np.ndarray, high: float = 255) -> None:
        self.picture = picture
        self.observation_space = gymnasium.spaces.Box(0, high, picture.shape, picture.dtype.type)

    def reset(self, *, seed: int | None = None, options: object = None) -> tuple[object, dict[str, object]]:
        return self.picture, {}


def test_order_and_scale_come_from_the_pretrained_encoder() -> None:
    stacked = np.random.default_rng(0).integers(256, size=(2, 11, 10, 3), dtype=np.uint8)  # (S, H, W, C)
    last = np.concatenate(list(stacked), axis=-1)
    plain = _pretrained()
    right = plain.encoder(torch.from_numpy(last.transpose(2, 0, 1)[None, :, 1:10, 0:9].copy()))[0].numpy()
    cases = [
        (_pretrained(layout="SHWC"), _Still(stacked)),
        (plain, _Still(last)),
        (plain, _Still(last.transpose(2, 0, 1))),
        (_pretrained(scale=1 / 255), _Still(last.astype(np.float32))),
    ]
    for encoder, env in cases:
        features, _ = FeatureObservation(env, encoder).reset()
        np.testing.assert_allclose(features, right, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="floating-point observations must lie in"):
        FeatureObservation(_Still(last.astype(np.float32)), plain)
    with pytest.raises(ValueError, match=r"; for a stack of frames load the encoder with layout='SHWC' or 'SCHW'$"):
        FeatureObservation(_Still(stacked), plain)
    with pytest.raises(ValueError, match="4 dimensions"):
        FeatureObservation(_Still(last), _pretrained(layout="SHWC"))
    with pytest.raises(ValueError, match="channels_last would permute layout 'HWC' a second time"):
        FeatureObservation(_Still(last), _pretrained(layout="HWC"), channels_last=True)
