"""Gymnasium: wrappers that turn environments of pixels, single or vector, into environments of features."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from torch import nn

from curl_rl.artifacts.pretrained import PretrainedEncoder
from curl_rl.encoders import evaluating

Encoded = NDArray[np.float32]


class FeatureObservation(gymnasium.ObservationWrapper[Encoded, Any, Any]):
    """An environment whose observation is the encoder's features, float32 ``(D,)``, instead of its image.

    Args:
        env: with observations ``(C, H, W)``, uint8 or floating point in [0, 1].
        encoder: takes a batch of them and returns ``(B, D)``. It works where it is (move it to a GPU first) and without
            gradients, in evaluation mode, and stays the caller's: each part is left in the mode that it was in, and the
            features follow where it is trained further. What :func:`~curl_rl.load_encoder` gives takes observations in
            whatever order and scale it was loaded for, stacks of frames ``(S, H, W, C)`` included.
        channels_last: whether observations are ``(H, W, C)`` instead; for other encoders, which cannot tell.

    Raises:
        ValueError: the observations are no such images, or not what the encoder takes.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], encoder: nn.Module, *, channels_last: bool = False) -> None:
        super().__init__(env)
        self._features = _Features(encoder, env.observation_space, channels_last)
        self.observation_space = self._features.space

    def observation(self, observation: NDArray[Any]) -> Encoded:
        """``(C, H, W)`` to ``(D,)``."""
        return self._features(observation[None])[0]


class VectorFeatureObservation(gymnasium.vector.VectorObservationWrapper[Encoded, Any, Any, Any]):
    """The same for a vector environment of N: all images in one pass, ``(N, C, H, W)`` to float32 ``(N, D)``.

    Environments that reset within the same step are refused (``ValueError``), because the last image of an episode
    would stay one in ``info``; Gymnasium's default is to reset in the next step.
    """

    def __init__(
        self, env: gymnasium.vector.VectorEnv[Any, Any, Any], encoder: nn.Module, *, channels_last: bool = False
    ) -> None:
        super().__init__(env)
        self._features = _Features(encoder, env.single_observation_space, channels_last)
        self.single_observation_space = self._features.space
        self.observation_space = batch_space(self._features.space, self.num_envs)

    def observations(self, observations: NDArray[Any]) -> Encoded:
        """``(N, C, H, W)`` to ``(N, D)``."""
        return self._features(observations)


class _Features:
    """From a batch of observations to features, and the space of one."""

    def __init__(self, encoder: nn.Module, space: gymnasium.Space[Any], channels_last: bool) -> None:
        dimensions, white = 3, 1.0
        if isinstance(encoder, PretrainedEncoder):
            if channels_last and encoder.layout not in ("auto", "CHW"):
                raise ValueError(f"channels_last would turn layout {encoder.layout!r} round once more: leave it out")
            dimensions, white = (4 if encoder.layout in ("SCHW", "SHWC") else 3), 1 / encoder.scale
        if (
            not isinstance(space, gymnasium.spaces.Box)
            or len(space.shape) != dimensions
            or not (space.dtype == np.uint8 or np.issubdtype(space.dtype, np.floating))
        ):
            unnamed = (
                isinstance(encoder, PretrainedEncoder) and encoder.layout == "auto" and len(space.shape or ()) == 4
            )
            hint = "; for a stack of frames load the encoder with layout='SHWC' or 'SCHW'" if unnamed else ""
            raise ValueError(
                f"observations must be images, a Box of uint8 or floats with {dimensions} dimensions, got {space}{hint}"
            )
        # A scale such as 0.0039 is a rounded 1/255.
        if space.dtype != np.uint8 and ((space.low < 0).any() or (space.high > 1.01 * white).any()):
            raise ValueError(f"floating-point observations must lie in [0, {white:g}], got {space}")
        self.encoder = encoder
        self.channels_last = channels_last
        self.device = next(encoder.parameters()).device
        blank = self(np.zeros((1, *space.shape), space.dtype))  # an encoder that does not fit says so now
        if blank.ndim != 2:
            raise ValueError(f"encoder {type(encoder).__name__} must return (B, D), got {blank.shape}")
        self.space = gymnasium.spaces.Box(-np.inf, np.inf, blank.shape[1:], np.float32)

    @torch.inference_mode()
    def __call__(self, observations: NDArray[Any]) -> Encoded:
        # A copy: some environments hand out read-only arrays, and vector environments write into theirs later.
        images = torch.tensor(observations, device=self.device)
        if self.channels_last:
            images = images.permute(0, 3, 1, 2)
        if images.dtype != torch.uint8:
            images = images.float()
        with evaluating(self.encoder):
            features: Encoded = self.encoder(images).float().cpu().numpy()
        return features
