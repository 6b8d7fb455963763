"""An objective as a plug-in for anybody's training loop, which only adds ``aux(observations)`` to its loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from curl_rl.augment import random_crops
from curl_rl.encoders import Features, FeatureSpec, ModuleEncoder, evaluating
from curl_rl.objectives import (
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

_USER = ObjectiveUser("objective", "a training loop of one's own", frozenset({"labels", "indices", "actions"}))


class AuxiliaryLoss(nn.Module):
    """A self-supervised loss on somebody else's encoder, with the crops and the slow copy that it needs.

    ``aux(observations)`` takes ``(B, C, H, W)``, uint8 in [0, 255] or floating point in [0, 1], and returns the
    objective's loss, a scalar. Every view is a random crop of its own, view 0 too: the loss asks nothing of what the
    loop does with the observations. Gradients reach the encoder and the objective; an optimizer of the loop's must hold
    the encoder's parameters, as it does anyway, and :meth:`new_parameters`.

    An objective that compares moments gets the later observations too, ``aux(observations, later=[...])``, one tensor
    for each of :attr:`offsets`; one that needs labels, indices or actions gets them by ``batch=BatchInfo(...)``.

    A call in training mode announces one step of the optimizer. What has to follow that step (the slow copy moves, keys
    are enqueued) is done at the start of the next such call, which is the same as right after the step as long as
    nobody else changes the encoder in between. In evaluation mode a call has no consequences, and always takes the same
    crops.

    The encoder is not a submodule: neither ``parameters()``, ``state_dict()`` nor ``train()`` of this module touch it.
    Everything else is in ``state_dict()``: heads, memory, slow copy, the step that is not yet followed up and the state
    of the crops' generator. Save and load it together with the encoder.

    Args:
        encoder: a module with ``feature_spec`` and ``encode``, such as any :class:`~curl_rl.encoders.Encoder`; others
            go into a :class:`~curl_rl.ModuleEncoder` first. It must be on its device already; the objective is moved
            there.
        objective: the name of a method, for its default settings, or an objective built for ``encoder.feature_spec``.
            Methods that cluster all data between epochs are refused.
        crop: side of the square that the encoder sees, in pixels. [default: the side of the encoder's own input]
        pad: pixels by which the edges of observations are repeated before they are cropped. Where observations are no
            larger than the crop there is nothing else to choose from: 4 then gives the random shifts of DrQ (Kostrikov
            et al. 2020, arXiv 2004.13649, section 3.1).
        tau: share of the encoder that its slow copy takes over in each step, CURL's Table 3: 0.05. [default: what the
            objective asks for]
        total_steps: for objectives whose momentum follows a schedule (BYOL, MoCo v3), how many steps it takes.
            [default: the momentum stays where it starts]
        generator: what crops are drawn from, on the encoder's device. [default: one of its own, seeded from torch's
            global generator]
        data: sizes of the data, for a method by name that has to know them: a bank wants ``DataSpec(count=...)``.

    Raises:
        ValueError: an argument cannot be; in a call, observations of another kind than those above.
    """

    metrics: dict[str, Tensor]
    """What the last call measured beside the loss, detached scalars by name (``curl_rl.objectives.base``)."""
    steps: Tensor
    """How many calls were made in training mode, a scalar integer."""

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
            raise ValueError(f"tau {tau} leaves total_steps {total_steps} without a meaning: give one of them")
        # In a tuple, because a module that is an attribute becomes a submodule.
        self._encoder: tuple[Any] = (encoder,)
        self.crop = crop if crop is not None else _input_side(encoder)
        if self.crop < 1:
            raise ValueError(f"crop must be at least 1, got {self.crop}")
        self.pad, self.tau, self.total_steps = pad, tau, total_steps

        weight = next(encoder.parameters())
        if isinstance(objective, Objective):
            built = objective
            _USER.refuse(type(built).__name__, built.needs)
        else:
            built = _built(objective, self.encoder.feature_spec, data).to(weight.dtype)
        self.objective = built.to(weight.device)
        # dict.fromkeys: each view once, in a fixed order, because the order decides which random numbers it gets.
        self._specs = tuple(dict.fromkeys((*built.online_views, *built.target_views)))
        self.offsets = tuple(sorted({spec.future for spec in self._specs} - {0}))
        """Agent steps from the observations to each of the later ones that the objective compares them with."""
        self.target = momentum_copy(encoder) if built.target_views else None
        """The encoder's slow copy."""
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64, device=weight.device))
        self.metrics = {}
        self._unfinished = False  # whether the last step in training mode is still to be followed up
        self._carry: Any = None
        if generator is None:
            seed = int(torch.randint(2**62, ()))
            generator = torch.Generator(weight.device).manual_seed(seed)
        self._generator = generator
        self._evaluation_seed = generator.initial_seed()

    @property
    def encoder(self) -> Any:
        """The encoder that is trained."""
        return self._encoder[0]

    def new_parameters(self) -> list[nn.Parameter]:
        """What the loop's optimizer has to learn beside the encoder: the objective's heads. May be empty.

        ``objective.parameter_groups()`` gives the same as optimizer groups, where a method wants its own learning rate
        for a part.
        """
        return list(self.objective.parameters())

    def forward(
        self,
        observations: Tensor,
        *,
        later: Sequence[Tensor] = (),
        batch: BatchInfo = BatchInfo(),  # noqa: B008 (immutable)
    ) -> Tensor:
        self._check(observations, later, batch)
        if self.training:
            self._finish_step()
            generator = self._generator
        else:
            generator = torch.Generator(self._generator.device).manual_seed(self._evaluation_seed)
        views: dict[ViewSpec, Tensor] = {}
        for offset, moment in zip((0, *self.offsets), (observations, *later), strict=True):
            specs = [spec for spec in self._specs if spec.future == offset]
            padded = _repeat_edges(moment, self.pad) if self.pad else moment
            if specs:
                views |= zip(specs, random_crops(padded, self.crop, generator, len(specs)), strict=True)
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
        """What follows the optimizer's step that the last call in training mode has announced."""
        if not self._unfinished:
            return
        momentum = self._momentum()
        if self.target is not None:
            move_towards(self.target.parameters(), self.encoder.parameters(), 1 - momentum)
        self.objective.after_step(self._carry, momentum)
        self._carry, self._unfinished = None, False

    def _momentum(self) -> Tensor:
        """Of the last step, a scalar."""
        if self.tau is not None:
            return torch.full((), 1 - self.tau, device=self.steps.device)
        # As in pretraining: the first step's progress is 0.
        progress = ((self.steps - 1) / (self.total_steps or 1)).clamp(max=1.0)
        return self.objective.momentum(progress if self.total_steps is not None else torch.zeros_like(progress))

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
                    f"later must be {observations.dtype} {tuple(observations.shape)} as the observations are, got "
                    f"{moment.dtype} {tuple(moment.shape)}"
                )
        for need in ("indices", "labels", "actions"):
            if need in self.objective.needs and getattr(batch, need) is None:
                raise ValueError(
                    f"batch must hold {need}, which {type(self.objective).__name__} needs, got none: "
                    f"batch=BatchInfo({need}=...)"
                )
        if observations.ndim != 4:
            raise ValueError(f"observations must be (B, C, H, W), got {tuple(observations.shape)}")
        if observations.dtype != torch.uint8 and not observations.is_floating_point():
            raise ValueError(f"observations must be uint8 or floating point in [0, 1], got {observations.dtype}")
        if observations.device != self._generator.device:
            raise ValueError(
                f"observations are on {observations.device}, the crops' generator on {self._generator.device}: move "
                "the encoder to its device before AuxiliaryLoss is built, and hand in observations from there"
            )
        height, width = (side + 2 * self.pad for side in observations.shape[-2:])
        if min(height, width) < self.crop:
            raise ValueError(f"observations of {height}×{width} (padded) are smaller than the crop of {self.crop}")
        if height == width == self.crop:
            raise ValueError(
                f"observations of {height}×{width} leave a crop of {self.crop} nothing to choose from, so all views "
                "would be the same: give pad=4, or render larger"
            )

    def get_extra_state(self) -> dict[str, Any]:
        """What no buffer holds: the step that is not yet followed up, and the state of the crops."""
        return {
            "unfinished": self._unfinished,
            "carry": self._carry,
            "generator": self._generator.get_state(),
            "generator_device": self._generator.device.type,
            "evaluation_seed": self._evaluation_seed,
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Puts back what :meth:`get_extra_state` gave."""
        carry = state["carry"]
        self._carry = carry.to(self.steps.device) if isinstance(carry, Tensor) else carry
        self._unfinished = state["unfinished"]
        self._evaluation_seed = state["evaluation_seed"]
        # A state means nothing to the generator of another kind of device: crops then go on from a state of their own.
        if state["generator_device"] == self._generator.device.type:
            self._generator.set_state(state["generator"].cpu())


def _built(name: ObjectiveName, features: FeatureSpec, data: DataSpec) -> Objective:
    objective = build_objective(name, features, data=data, user=_USER)
    if objective is None:
        raise ValueError(f"objective {name!r} is no loss: leave AuxiliaryLoss out, or name another one, such as 'curl'")
    return objective


def _input_side(encoder: Any) -> int:
    """Of the square images that an encoder expects."""
    # Anything with `encode` and `feature_spec` is an encoder here: the rest of the interface may be missing.
    names = ("input_shape", "observation_shape", "image_shape")
    shape = next((getattr(encoder, name) for name in names if hasattr(encoder, name)), None)
    if shape is None:
        raise ValueError(f"encoder {type(encoder).__name__} has no input_shape (C, H, W): give crop, in pixels")
    if shape[1] != shape[2]:
        raise ValueError(f"encoder expects images of {shape[1]}×{shape[2]}; crops are square")
    return int(shape[1])


def _repeat_edges(images: Tensor, pad: int) -> Tensor:
    """``(B, C, H, W)`` of any type, larger by ``pad`` pixels on each side. (torch's own padding wants floats.)"""
    height, width = images.shape[-2:]
    rows, columns = (
        torch.arange(-pad, side + pad, device=images.device).clamp(0, side - 1) for side in (height, width)
    )
    return images.index_select(2, rows).index_select(3, columns)
