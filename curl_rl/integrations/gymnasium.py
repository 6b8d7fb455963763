"""Gymnasium: wrappers that replace the pixels of single and vector environments by features."""

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
    """Replaces the images of an environment by the encoder's features, float32 ``(D,)``.

    Args:
        env: an environment with observations ``(C, H, W)``, uint8 or floating point in [0, 1].
        encoder: takes a batch of observations and returns ``(B, D)``. It runs on its current device (move it to a GPU
            first), without gradients and in evaluation mode. It is not copied: the mode of each module is restored, and
            the features follow further training. An encoder from :func:`~curl_rl.load_encoder` takes observations in
            the order and scale it was loaded for, including stacks of frames ``(S, H, W, C)``.
        channels_last: observations are ``(H, W, C)``; for other encoders, which do not infer the order.

    Raises:
        ValueError: the observations are not such images, or do not fit the encoder.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], encoder: nn.Module, *, channels_last: bool = False) -> None:
        super().__init__(env)
        self._features = _Features(encoder, env.observation_space, channels_last)
        self.observation_space = self._features.space

    def observation(self, observation: NDArray[Any]) -> Encoded:
        """``(C, H, W)`` to ``(D,)``."""
        return self._features(observation[None])[0]


class VectorFeatureObservation(gymnasium.vector.VectorObservationWrapper[Encoded, Any, Any, Any]):
    """:class:`FeatureObservation` for a vector of N environments: ``(N, C, H, W)`` to float32 ``(N, D)`` in one pass.

    Environments that reset within the same step are refused (``ValueError``), because the final observation of an
    episode would remain an image in ``info``; Gymnasium's default is to reset in the next step.
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
    """Maps a batch of observations to features, and holds the space of a single feature vector."""

    def __init__(self, encoder: nn.Module, space: gymnasium.Space[Any], channels_last: bool) -> None:
        dimensions, white = 3, 1.0
        if isinstance(encoder, PretrainedEncoder):
            if channels_last and encoder.layout not in ("auto", "CHW"):
                raise ValueError(f"channels_last would permute layout {encoder.layout!r} a second time: leave it out")
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
        blank = self(np.zeros((1, *space.shape), space.dtype))  # fails now if the encoder does not fit
        if blank.ndim != 2:
            raise ValueError(f"encoder {type(encoder).__name__} must return (B, D), got {blank.shape}")
        self.space = gymnasium.spaces.Box(-np.inf, np.inf, blank.shape[1:], np.float32)

    @torch.inference_mode()
    def __call__(self, observations: NDArray[Any]) -> Encoded:
        # A copy: some environments return read-only arrays, and vector environments overwrite theirs later.
        images = torch.tensor(observations, device=self.device)
        if self.channels_last:
            images = images.permute(0, 3, 1, 2)
        if images.dtype != torch.uint8:
            images = images.float()
        with evaluating(self.encoder):
            features: Encoded = self.encoder(images).float().cpu().numpy()
        return features
