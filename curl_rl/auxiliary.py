"""An objective as a plug-in for any training loop, which only adds ``aux(observations)`` to its loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from curl_rl.augment import random_crops
from curl_rl.encoders import Features, FeatureSpec, ModuleEncoder, evaluating
from curl_rl.encoders.float_range import FloatRange
from curl_rl.objectives import (
    METHODS,
    BatchInfo,
    DataSpec,
    Objective,
    ObjectiveName,
    ObjectiveUser,
    Result,
    ViewSpec,
    build_objective,
    encode_views,
)
from curl_rl.objectives.momentum import momentum_copy, move_towards

__all__ = ["AuxiliaryLoss", "ModuleEncoder"]

_USER = ObjectiveUser(
    "objective", "a custom training loop", frozenset({"labels", "indices", "actions", "text", "hidden"})
)


class AuxiliaryLoss(nn.Module):
    """A self-supervised loss on an existing encoder, with the crops and the slow copy that it needs.

    ``aux(observations)`` takes ``(B, C, H, W)``, uint8 in [0, 255] or floating point in [0, 1], and returns the
    objective's loss, a scalar. Of a dict of observations, such as those of a ``gymnasium.spaces.Dict``, it takes the
    only entry with four dimensions; the objective sees nothing of the others. Every view is its own random crop,
    including view 0, so the loss does not depend on how the loop uses the observations. Gradients reach the encoder and
    the objective; the loop's optimizer must hold the encoder's parameters, as it does anyway, and
    :meth:`new_parameters`.

    For an objective that compares texts, pass tokens, ``(B, L)`` int64, which the encoder takes: as they are for all
    views, which then differ by the encoder's noise, or with those of the further views, ``aux(tokens, later=[positives,
    hard_negatives])``.

    For an objective that compares moments, pass the later observations too, ``aux(observations, later=[...])``, one
    tensor for each of :attr:`offsets`; pass labels, indices, actions or hidden tokens, if it needs them,
    as ``batch=BatchInfo(...)``.

    Each call in training mode must be followed by one optimizer step. The work after that step (moving the slow copy,
    enqueuing keys) is done at the start of the next such call, with the same result as right after the step, provided
    that nothing else changes the encoder in between. A call in evaluation mode has no side effects and always uses the
    same crops.

    The encoder is not a submodule: ``parameters()``, ``state_dict()`` and ``train()`` of this module do not touch it.
    Everything else is in ``state_dict()``: heads, memory, slow copy, the work due after the last step, and the state of
    the crop generator. Save and load it together with the encoder.

    Args:
        encoder: a module with ``feature_spec`` and ``encode``, such as any :class:`~curl_rl.encoders.Encoder`; wrap
            others in a :class:`~curl_rl.ModuleEncoder`. It must already be on its device; the objective is moved there.
        objective: the name of a method, for its default settings, or an objective built for ``encoder.feature_spec``.
            Methods that cluster all data between epochs are refused.
        crop: side of the square that the encoder sees, in pixels; not for texts. [default: that of the encoder's input]
        pad: number of pixels by which observations are padded, repeating their edges, before they are cropped. Use 4
            for observations no larger than the crop: the random shifts of DrQ (Kostrikov et al. 2020,
            arXiv 2004.13649, section 3.1).
        tau: fraction by which the slow copy moves toward the encoder in each step; 0.05 in CURL's Table 3. [default:
            chosen by the objective]
        total_steps: length in steps of the momentum schedule, for objectives that have one (BYOL, MoCo v3). [default:
            the momentum keeps its initial value]
        generator: random generator of the crops, on the encoder's device. [default: a new one, seeded from torch's
            global generator]
        data: sizes of the data, for a method given by name that depends on them: a bank needs ``DataSpec(count=...)``.

    Raises:
        ValueError: an argument is out of range or does not fit the others; in a call, observations not as above.
    """

    metrics: dict[str, Tensor]
    """Metrics of the last call, detached scalars by name (``curl_rl.objectives.base``)."""
    steps: Tensor
    """Number of calls made in training mode, a scalar integer."""

    def __init__(
        self,
        encoder: nn.Module,
        objective: ObjectiveName | Objective,
        *,
        crop: int | None = None,
        pad: int = 0,
        tau: float | None = None,
        total_steps: int | None = None,
        generator: torch.Generator | None = None,
        data: DataSpec = DataSpec(),  # noqa: B008 (frozen)
    ) -> None:
        super().__init__()
        if not hasattr(encoder, "encode") or not hasattr(encoder, "feature_spec"):
            raise ValueError(
                f"encoder {type(encoder).__name__} has no encode() and feature_spec: "
                "wrap it as ModuleEncoder(encoder, (C, H, W))"
            )
        if pad < 0:
            raise ValueError(f"pad must be at least 0, got {pad}")
        if tau is not None and not 0 <= tau <= 1:
            raise ValueError(f"tau must lie in [0, 1], got {tau}")
        if total_steps is not None and total_steps < 1:
            raise ValueError(f"total_steps must be at least 1, got {total_steps}")
        if tau is not None and total_steps is not None:
            raise ValueError(f"total_steps must be None with a fixed tau of {tau}, got {total_steps}: set one of them")
        # In a tuple, because a module assigned to an attribute becomes a submodule.
        self._encoder: tuple[Any] = (encoder,)
        self.pad, self.tau, self.total_steps = pad, tau, total_steps

        weight = next(encoder.parameters())
        if isinstance(objective, Objective):
            built = objective
            _USER.refuse(type(built).__name__, built.needs)
        else:
            built = _built(objective, self.encoder.feature_spec, data).to(weight.dtype)
        self.objective = built.to(weight.device)
        # dict.fromkeys: each view once, in a fixed order, because the order determines its random numbers.
        self._specs = tuple(dict.fromkeys((*built.online_views, *built.target_views)))
        self._texts = _compares_texts(self._specs)
        self.crop = 0 if self._texts else crop if crop is not None else _input_side(encoder)
        if self.crop < 1 and not self._texts:
            raise ValueError(f"crop must be at least 1, got {self.crop}")
        if self._texts and (crop is not None or pad):
            raise ValueError(f"crop and pad must be left out for texts, got crop {crop} and pad {pad}")
        self.offsets = tuple(sorted({spec.future for spec in self._specs} - {0}))
        """Agent steps from the observations to each of the later ones that the objective needs."""
        self.target = momentum_copy(encoder) if built.target_views else None
        """The encoder's slow copy."""
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64, device=weight.device))
        self.metrics = {}
        self._float_range = FloatRange()
        self._unfinished = False  # True while the work after the last optimizer step is pending
        self._carry: Any = None
        if generator is None:
            seed = int(torch.randint(2**62, ()))
            generator = torch.Generator(weight.device).manual_seed(seed)
        self._generator = generator
        self._evaluation_seed = generator.initial_seed()

    @property
    def encoder(self) -> Any:
        """The trained encoder."""
        return self._encoder[0]

    def new_parameters(self) -> list[nn.Parameter]:
        """The parameters that the optimizer must learn besides the encoder's: the objective's heads. May be empty.

        ``objective.parameter_groups()`` gives the same parameters as optimizer groups, some with their own learning
        rate.
        """
        return list(self.objective.parameters())

    def forward(
        self,
        observations: Tensor | Mapping[str, Tensor],
        *,
        later: Sequence[Tensor | Mapping[str, Tensor]] = (),
        batch: BatchInfo = BatchInfo(),  # noqa: B008 (immutable)
    ) -> Tensor:
        images, later_images = _images(observations), [_images(moment) for moment in later]
        if self._texts:
            self._check_texts(images, later_images, batch)
        else:
            self._check(images, later_images, batch)
        if self.training:
            self._finish_step()
            generator = self._generator
        else:
            generator = torch.Generator(self._generator.device).manual_seed(self._evaluation_seed)
        if self._texts:
            given = (images, *later_images) if later_images else [images] * len(self._specs)
            views = dict(zip(self._specs, given, strict=True))
        else:
            views = self._crops((images, *later_images), generator)
        if self.training:
            result = self._result(views, batch)
            self._carry, self._unfinished = result.carry, True
            self.steps += 1
        else:
            with evaluating(self.encoder):
                result = self._result(views, batch)
        self.metrics = result.metrics
        loss: Tensor = result.loss
        return loss

    def _crops(self, moments: Sequence[Tensor], generator: torch.Generator) -> dict[ViewSpec, Tensor]:
        views: dict[ViewSpec, Tensor] = {}
        for offset, moment in zip((0, *self.offsets), moments, strict=True):
            specs = [spec for spec in self._specs if spec.future == offset]
            padded = _repeat_edges(moment, self.pad) if self.pad else moment
            if specs:
                views |= zip(specs, random_crops(padded, self.crop, generator, len(specs)), strict=True)
        return views

    def _result(self, views: dict[ViewSpec, Tensor], batch: BatchInfo) -> Result:
        objective = self.objective
        online = encode_views(self.encoder.encode, views, objective.online_views, together=objective.views_together)
        target: list[Features] = []
        if self.target is not None:
            encode: Any = self.target.encode
            with torch.no_grad():
                target = encode_views(encode, views, objective.target_views)
        result: Result = objective(online, target, batch)
        return result

    @torch.no_grad()
    def _finish_step(self) -> None:
        """Does the work due after the optimizer step of the last call in training mode."""
        if not self._unfinished:
            return
        momentum = self._momentum()
        if self.target is not None:
            move_towards(self.target.parameters(), self.encoder.parameters(), 1 - momentum)
        self.objective.after_step(self._carry, momentum)
        self._carry, self._unfinished = None, False

    def _momentum(self) -> Tensor:
        """Momentum of the last step, a scalar."""
        if self.tau is not None:
            return torch.full((), 1 - self.tau, device=self.steps.device)
        # As in pretraining, the first step has progress 0.
        moved_for = self.steps - 1 + self.objective.momentum_ahead
        progress = (moved_for / (self.total_steps or 1)).clamp(max=1.0)
        return self.objective.momentum(progress if self.total_steps is not None else torch.zeros_like(progress))

    def _check_batch(self, batch: BatchInfo) -> None:
        for need in ("indices", "labels", "actions", "hidden"):
            if need in self.objective.needs and getattr(batch, need) is None:
                raise ValueError(
                    f"batch must hold {need}, which {type(self.objective).__name__} needs, got none: "
                    f"batch=BatchInfo({need}=...)"
                )

    def _check_texts(self, tokens: Tensor, later: Sequence[Tensor], batch: BatchInfo) -> None:
        further = len(self._specs) - 1
        if len(later) != further and (later or self.offsets or further > 1):
            raise ValueError(
                f"later must hold the tokens of the {further} views after the first, got {len(later)}: the positives, "
                "the hard negatives, the masked texts or the next ones, as the objective needs them"
            )
        self._check_batch(batch)
        for text in (tokens, *later):
            if text.ndim != 2 or text.dtype != torch.int64 or len(text) != len(tokens):
                raise ValueError(
                    f"tokens must be (B, L) int64, as many texts for each view, got {text.dtype} {tuple(text.shape)}"
                )

    def _check(self, observations: Tensor, later: Sequence[Tensor], batch: BatchInfo) -> None:
        if len(later) != len(self.offsets):
            wanted = ", ".join(map(str, self.offsets)) or "none"
            raise ValueError(
                f"later must be one tensor for each of {wanted} agent steps after the observations, got {len(later)}: "
                "see the attribute offsets"
            )
        for moment in later:
            if moment.shape != observations.shape or moment.dtype != observations.dtype:
                raise ValueError(
                    f"later must be {observations.dtype} {tuple(observations.shape)} like the observations, got "
                    f"{moment.dtype} {tuple(moment.shape)}"
                )
        self._check_batch(batch)
        if observations.ndim != 4:
            raise ValueError(f"observations must be (B, C, H, W), got {tuple(observations.shape)}")
        if observations.dtype != torch.uint8 and not observations.is_floating_point():
            raise ValueError(f"observations must be uint8 or floating point in [0, 1], got {observations.dtype}")
        if observations.device != self._generator.device:
            raise ValueError(
                f"observations must be on {self._generator.device} like the crop generator, got "
                f"{observations.device}: move the encoder to its device before building AuxiliaryLoss, and the "
                "observations to the same one"
            )
        if not hasattr(self.encoder, "scale"):  # one that has a scale checks it itself
            self._float_range.check(observations, "divide them by 255, or pass uint8")
        height, width = (side + 2 * self.pad for side in observations.shape[-2:])
        if min(height, width) < self.crop:
            raise ValueError(f"observations of {height}×{width} (padded) are smaller than the crop of {self.crop}")
        if height == width == self.crop:
            raise ValueError(
                f"observations of {height}×{width} leave only one crop of {self.crop}, so all views would be the same: "
                "set pad=4, or render larger"
            )

    def get_extra_state(self) -> dict[str, Any]:
        """State outside of buffers: the work due after the last step, and the state of the crop generator."""
        return {
            "unfinished": self._unfinished,
            "carry": self._carry,
            "generator": self._generator.get_state(),
            "generator_device": self._generator.device.type,
            "evaluation_seed": self._evaluation_seed,
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restores the result of :meth:`get_extra_state`."""
        self._carry = tree_map_only(Tensor, lambda tensor: tensor.to(self.steps.device), state["carry"])
        self._unfinished = state["unfinished"]
        self._evaluation_seed = state["evaluation_seed"]
        # Another kind of device cannot use the state: its generator keeps its own.
        if state["generator_device"] == self._generator.device.type:
            self._generator.set_state(state["generator"].cpu())


def _built(name: ObjectiveName, features: FeatureSpec, data: DataSpec) -> Objective:
    objective = build_objective(name, features, data=data, user=_USER)
    if objective is None:
        names = ", ".join(METHODS)
        raise ValueError(f"objective must be one of {names}, got {name!r}: without one, omit AuxiliaryLoss")
    return objective


def _compares_texts(specs: Sequence[ViewSpec]) -> bool:
    """Whether an objective compares texts, and not images.

    Raises:
        ValueError: it compares both.
    """
    modalities = {spec.modality for spec in specs}
    if len(modalities) > 1:
        raise ValueError(
            "objective must compare images or texts, got one of both, which needs two encoders: train it with "
            "scripts/pretrain_text.py"
        )
    return "text" in modalities


def _input_side(encoder: Any) -> int:
    """Side of the square images that an encoder expects."""
    # Anything with `encode` and `feature_spec` counts as an encoder here; the rest of the interface may be missing.
    names = ("input_shape", "observation_shape", "image_shape")
    shape = next((getattr(encoder, name) for name in names if hasattr(encoder, name)), None)
    if shape is None:
        raise ValueError(f"encoder {type(encoder).__name__} has no input_shape (C, H, W): set crop, in pixels")
    if shape[1] != shape[2]:
        raise ValueError(f"the encoder's images must be square, like the crops, got {shape[1]}×{shape[2]}: set crop")
    return int(shape[1])


def _images(observations: Tensor | Mapping[str, Tensor]) -> Tensor:
    """The images themselves, or those in a dict of observations.

    Raises:
        ValueError: the dict does not hold exactly one batch of images.
    """
    if not isinstance(observations, Mapping):
        return observations
    images = [name for name, entry in observations.items() if entry.ndim == 4]
    if len(images) != 1:
        shapes = {name: tuple(entry.shape) for name, entry in observations.items()}
        raise ValueError(
            f"observations must hold one entry of images (B, C, H, W), got {shapes}: pass the images alone"
        )
    return observations[images[0]]


def _repeat_edges(images: Tensor, pad: int) -> Tensor:
    """Pads ``(B, C, H, W)`` of any type by ``pad`` pixels on each side. (torch's own padding requires floats.)"""
    height, width = images.shape[-2:]
    rows, columns = (
        torch.arange(-pad, side + pad, device=images.device).clamp(0, side - 1) for side in (height, width)
    )
    return images.index_select(2, rows).index_select(3, columns)
