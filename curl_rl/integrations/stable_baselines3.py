"""Stable-Baselines3: a features extractor with our encoder, and a callback that trains it contrastively."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

from curl_rl.artifacts.pretrained import PretrainedEncoder
from curl_rl.augment import center_crop
from curl_rl.auxiliary import AuxiliaryLoss
from curl_rl.encoders import Encoder, EncoderConfig, PixelEncoder
from curl_rl.installation import installation_of
from curl_rl.objectives import Objective, ObjectiveName

try:
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.buffers import ReplayBuffer, RolloutBuffer
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.preprocessing import get_flattened_obs_dim
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
except ModuleNotFoundError as error:
    if error.name != "stable_baselines3":
        raise
    raise ImportError(
        f"curl_rl.integrations.stable_baselines3 needs Stable-Baselines3: {installation_of('sb3')}"
    ) from None

_LOG_EVERY = 100  # steps; reading a metric makes the host wait for the device


class CurlFeaturesExtractor(BaseFeaturesExtractor):
    """An encoder of this package as the features extractor of any Stable-Baselines3 policy on images.

    Pass it in ``policy_kwargs`` as ``features_extractor_class``, and its arguments as ``features_extractor_kwargs``.
    Stable-Baselines3 divides pixels by 255 before it calls the extractor, and the encoder does not divide again; keep
    ``normalize_images`` at True if observations are uint8. Larger observations are center-cropped, as in this package's
    own evaluation.

    Observations may also be a dict of one image and vectors, for ``MultiInputPolicy``: the features are then the
    encoder's, followed by the vectors, flat, as Stable-Baselines3's own ``CombinedExtractor`` joins them.

    Each network of a policy that has an extractor gets its own copy of the encoder. A saved model includes the encoder,
    so loading the model needs no other file.

    Args:
        observation_space: ``(C, H, W)`` images, as Stable-Baselines3 passes them to its policies, or a dict of one
            image and vectors.
        pretrained: an encoder from :func:`~curl_rl.load_encoder`, frozen unless it was loaded with ``freeze=False``.
            None creates a new :class:`~curl_rl.PixelEncoder`.
        crop: side of the center crop that a new encoder sees. [default: the whole of square observations]
        config: shape of a new encoder.

    Raises:
        ValueError: the observations are not such images, or do not fit the encoder.
    """

    def __init__(
        self,
        observation_space: gymnasium.Space[Any],
        pretrained: PretrainedEncoder | None = None,
        crop: int | None = None,
        config: EncoderConfig = EncoderConfig(),  # noqa: B008 (frozen)
    ) -> None:
        image, pixels, beside = _parts(observation_space)
        channels, height, width = _image_shape(pixels)
        if pretrained is not None and crop is not None:
            raise ValueError(
                f"crop {crop} applies to a new encoder only; the pretrained one has its own: leave crop out"
            )
        encoder: Encoder
        if pretrained is not None:
            if pretrained.scale != 1:
                raise ValueError(
                    f"the pretrained encoder's scale is {pretrained.scale:g}, but its input is in [0, 1] here: "
                    "Stable-Baselines3 has already divided by 255; load it with scale=1"
                )
            encoder = copy.deepcopy(pretrained.encoder)
        else:
            side = crop if crop is not None else min(height, width)
            encoder = PixelEncoder((channels, side, side), config)
        super().__init__(observation_space, encoder.feature_spec.dim + sum(beside.values()))
        self.image = image
        """Name of the image in observations that are dicts."""
        self.beside = tuple(beside)
        """Names of the entries that follow the encoder's features."""
        self.encoder = encoder
        self.frozen = not any(parameter.requires_grad for parameter in encoder.parameters())
        """Whether the encoder is not trained."""
        self.side = None if encoder.any_size else encoder.input_shape[1]
        """Side of the center crop that the encoder sees; None if it takes observations of any size."""
        expected = encoder.input_shape[0]
        if channels != expected or min(height, width) < (self.side or 1):
            raise ValueError(
                f"observations of shape {(channels, height, width)} do not fit an encoder of "
                f"({expected}, {self.side or 'H'}, {self.side or 'W'}): change the frame stack or the render size"
            )
        self.train(self.training)

    def forward(self, observations: Tensor | dict[str, Tensor]) -> Tensor:
        pixels = observations[self.image] if isinstance(observations, dict) else observations
        view = pixels if self.side is None else center_crop(pixels, self.side)
        features: Tensor = self.encoder(view)
        if not isinstance(observations, dict):
            return features
        return torch.cat([features, *(observations[name].flatten(1) for name in self.beside)], dim=1)

    def train(self, mode: bool = True) -> CurlFeaturesExtractor:
        """Keeps a frozen encoder in evaluation mode, so that new images do not change its batch norm statistics."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def apply(self, fn: Any) -> CurlFeaturesExtractor:
        """Does nothing: PPO and A2C would otherwise overwrite the loaded weights with their own initialization."""
        return self


class ContrastiveCallback(BaseCallback):
    """Trains the encoders of a Stable-Baselines3 model with a self-supervised loss, in addition to the algorithm.

    Each :class:`CurlFeaturesExtractor` of the policy that is not frozen (except those of target networks) gets its own
    :class:`~curl_rl.AuxiliaryLoss` and its own Adam over encoder and heads, so the algorithm's losses and optimizers
    are unchanged. Observations come from the replay buffer (SAC, TD3, DQN), once learning has started, or from the
    rollout just collected (PPO, A2C).

    A callback belongs to one model. A second ``learn`` with the same callback continues with the same heads, memory and
    optimizers. ``model.save`` does not save them; save :meth:`training_state` as well.

    Args:
        objective: the name of a method (not an instance: each encoder has its own).
        every: steps of the (vector) environment per step of the loss. A rollout's steps are taken at its end.
        batch_size: observations in one step.
        lr: Adam's learning rate.
        pad: as in :class:`~curl_rl.AuxiliaryLoss`; use 4 if the encoder sees the whole observation.
        tau: as in :class:`~curl_rl.AuxiliaryLoss`.

    Logs the means of ``contrastive/loss`` and the objective's metrics every 100 steps.

    Raises:
        ValueError: an argument is invalid; at the start of ``learn``, the model has no encoder to train.
    """

    def __init__(
        self,
        objective: ObjectiveName = "curl",
        *,
        every: int = 1,
        batch_size: int = 128,
        lr: float = 1e-3,
        pad: int = 0,
        tau: float | None = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)
        for name, value in (("every", every), ("batch_size", batch_size)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not lr > 0:
            raise ValueError(f"lr must be positive, got {lr}")
        if isinstance(objective, Objective):
            raise ValueError(f"objective must be a name, such as 'curl', got a {type(objective).__name__}")
        self.objective: ObjectiveName = objective
        self.every, self.batch_size, self.lr, self.pad, self.tau = every, batch_size, lr, pad, tau
        self.losses: list[AuxiliaryLoss] = []
        """One for each trained encoder."""
        self.optimizers: list[torch.optim.Optimizer] = []
        """One for each of :attr:`losses`."""
        self.steps = 0
        """Steps taken so far, each on all encoders."""
        self._trained: BaseAlgorithm | None = None
        self._due = 0

    def _init_callback(self) -> None:
        if self._trained is self.model:
            return
        if self._trained is not None:
            raise ValueError("this ContrastiveCallback belongs to another model: create a new one")
        self._buffer()  # refuses a model without a buffer
        extractors = [
            module
            for name, module in self.model.policy.named_modules()
            if isinstance(module, CurlFeaturesExtractor) and "_target" not in name
        ]
        trained = [extractor.encoder for extractor in extractors if not extractor.frozen]
        if not trained:
            why = "its encoders are frozen" if extractors else "its policy has no CurlFeaturesExtractor"
            raise ValueError(f"ContrastiveCallback has nothing to train in this model: {why}")
        for encoder in trained:
            loss = AuxiliaryLoss(encoder, self.objective, pad=self.pad, tau=self.tau)
            if loss.offsets:
                raise ValueError(
                    f"objective {self.objective} compares observations with later ones, which a buffer's samples do "
                    "not have: take curl"
                )
            self.losses.append(loss)
            groups = [{"params": list(encoder.parameters())}, *loss.objective.parameter_groups()]
            self.optimizers.append(torch.optim.Adam([group for group in groups if group["params"]], self.lr))
        self._trained = self.model

    def _on_step(self) -> bool:
        self._due += 1
        buffer = self._buffer()
        # Steps due before learning starts are never made up for; neither are the algorithm's own updates.
        if isinstance(buffer, ReplayBuffer) and self._due >= self.every:
            self._due = 0
            if self.num_timesteps > self.model.learning_starts and buffer.size() > 0:  # type: ignore[attr-defined]
                self._train(self._pixels(buffer.sample(self.batch_size).observations))
        return True

    def _on_rollout_end(self) -> None:
        buffer = self._buffer()
        if isinstance(buffer, RolloutBuffer):
            observations = self._pixels(buffer.observations)
            observations = observations.reshape(-1, *observations.shape[2:])
            for _ in range(self._due // self.every):
                # The global generator, which the model's seed seeds and the buffers sample from.
                chosen = np.random.randint(len(observations), size=self.batch_size)  # noqa: NPY002
                self._train(torch.as_tensor(observations[chosen], device=self.model.device))
            self._due %= self.every

    def _train(self, observations: Tensor) -> None:
        """One step of each encoder on ``(batch_size, C, H, W)`` observations."""
        for loss, optimizer in zip(self.losses, self.optimizers, strict=True):
            encoder: nn.Module = loss.encoder
            mode = encoder.training
            encoder.train()
            optimizer.zero_grad()  # the algorithm leaves its gradients
            value = loss(observations)
            value.backward()
            optimizer.step()
            optimizer.zero_grad()
            encoder.train(mode)
        self.steps += 1
        if self.steps % _LOG_EVERY == 1:
            for name, metric in {"loss": value.detach(), **self.losses[-1].metrics}.items():
                self.logger.record_mean(f"contrastive/{name}", float(metric))

    def _pixels(self, observations: Any) -> Any:
        """The images in a buffer's observations: those themselves, or an entry of a dict."""
        image, _, _ = _parts(self.model.observation_space)
        return observations[image] if isinstance(observations, dict) else observations

    def _buffer(self) -> ReplayBuffer | RolloutBuffer:
        """The model's buffer, from which observations are sampled."""
        buffer = getattr(self.model, "replay_buffer", None) or getattr(self.model, "rollout_buffer", None)
        if not isinstance(buffer, (ReplayBuffer, RolloutBuffer)):
            raise ValueError(
                "ContrastiveCallback needs a model with a buffer of image observations, got "
                f"{type(self.model).__name__} on {self.model.observation_space}"
            )
        return buffer

    def training_state(self) -> dict[str, Any]:
        """Heads, memory, slow copies and optimizers; save it next to the model, with ``torch.save``."""
        return {
            "losses": [loss.state_dict() for loss in self.losses],
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "steps": self.steps,
            "due": self._due,
        }

    def load_training_state(self, model: BaseAlgorithm, state: dict[str, Any]) -> None:
        """Restores a :meth:`training_state` for the loaded ``model``."""
        self.init_callback(model)
        for loss, own in zip(self.losses, state["losses"], strict=True):
            loss.load_state_dict(own)
        for optimizer, own in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(own)
        self.steps, self._due = state["steps"], state["due"]


def _parts(space: gymnasium.Space[Any]) -> tuple[str, gymnasium.Space[Any], dict[str, int]]:
    """The name of the image in a dict, its space, and the flat length of every other entry.

    A space that is no dict is the image's own: without a name and other entries.

    Raises:
        ValueError: the dict does not hold exactly one image.
    """
    if not isinstance(space, gymnasium.spaces.Dict):
        return "", space, {}
    images = [name for name, entry in space.spaces.items() if len(entry.shape or ()) == 3]
    if len(images) != 1:
        raise ValueError(f"observation_space must hold one image (C, H, W) and vectors, got {space}")
    beside = {name: get_flattened_obs_dim(entry) for name, entry in space.spaces.items() if name != images[0]}
    return images[0], space[images[0]], beside


def _image_shape(space: gymnasium.Space[Any]) -> tuple[int, int, int]:
    """``(C, H, W)`` of a space of images, which policies receive as floating point in [0, 1]."""
    if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 3:
        raise ValueError(f"observation_space must be a Box of images (C, H, W), got {space}")
    white = 255 if space.dtype == np.uint8 else 1
    if (space.low < 0).any() or (space.high > white).any():
        raise ValueError(f"observation_space must hold uint8 in [0, 255] or floats in [0, 1], got {space}")
    channels, height, width = space.shape
    return channels, height, width
