"""CPC: contrastive predictive coding, over time or over patches (van den Oord et al. 2018, arXiv 1807.03748).

The embedding of an observation predicts those of the observations 1 to K agent steps later: each step k has a bilinear
form that scores every context of the batch against every observation k steps later, and the loss is the cross-entropy
of classifying each context's own one. With ``actions``, the prediction also depends on the actions in between, as in
TACO (Zheng et al. 2023, arXiv 2306.13229) and DR.Q (Lyu et al. 2026, arXiv 2605.11711).

Past the end of an episode, its last observation stays, with actions of 0: that is what replays and recordings give.
The form for single images is in ``cpc_patches``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curl_rl.encoders import Features, FeatureSpec
from curl_rl.encoders.heads import MLP
from curl_rl.losses.half_precision import widened
from curl_rl.objectives.base import BatchInfo, DataSpec, Objective, Result, ViewSpec
from curl_rl.objectives.cpc_patches import PatchCPC
from curl_rl.objectives.method import Method
from curl_rl.objectives.stepwise_contrast import StepwiseContrast
from curl_rl.ranges import at_least, check_ranges, within


@dataclass(frozen=True)
class CPCConfig:
    """Horizon, actions and heads of CPC. CPC's paper has no experiment in which actions are known."""

    kind: Literal["time", "patches"] = "time"
    """time: predict later observations, in replays and recorded frames. patches: predict the lower patches of an image
    from those above, with an encoder of patches (--encoder.patch)."""
    steps: Annotated[int, at_least(1)] = 3
    """Number K of predictions. time: the observations 1 to K agent steps later; TACO predicts the third alone. For
    recorded frames augment.views must be K + 1. patches: K rows below."""
    actions: bool = False
    """time: predict from the actions in between as well; the embedding is moved by a network of two layers that sees it
    and these actions. Otherwise the embedding must tell what usually follows."""
    hidden: Annotated[int | None, at_least(1)] = None
    """Width of that network, or of the context network of patches. [default: the features' own size]"""
    target: Literal["slow", "online"] = "slow"
    """time: encoder of the later observations. slow: the momentum copy, as in CURL. online: the encoder in training,
    with gradient, as in CPC's paper, and always for patches."""
    skip: Annotated[int, at_least(0)] = 1
    """patches: rows between a context's own row and the first that it predicts; 1, as neighbors overlap by half."""
    context_layers: Annotated[int, at_least(1)] = 5
    """patches: layers of the context network, each of which sees one row further up."""
    layer_norm: bool = False
    """Standardize each embedding over its features first. For encoders that do not end in a layer norm as CURL's does,
    such as a ResNet."""
    momentum: Annotated[float, within("[0, 1]")] = 0.95
    """Momentum of the slow copy. (In reinforcement learning agent.encoder_tau is used instead.)"""

    def __post_init__(self) -> None:
        check_ranges(self, "objectives.cpc")
        if self.kind == "patches" and self.actions:
            raise ValueError("objectives.cpc.actions must be false with kind patches, got true: take kind time")


class CPC(Objective):
    """Bilinear InfoNCE between an observation and each of the next K.

    Args:
        features: sizes of the encoder's features.
        config: the settings.
        action_dim: size of an action; only with ``config.actions``.
    """

    def __init__(
        self, features: FeatureSpec, config: CPCConfig = CPCConfig(), *, action_dim: int | None = None
    ) -> None:
        super().__init__()
        self.config = config
        dim, ahead = features.dim, range(1, config.steps + 1)
        later = tuple(ViewSpec(k, future=k) for k in ahead)
        slow = config.target == "slow"
        self.online_views = (ViewSpec(0),) if slow else (ViewSpec(0), *later)
        self.target_views = later if slow else ()
        self.contrast = StepwiseContrast(dim, config.steps)
        self.transitions: nn.ModuleList | None = None
        """One network per step, from the context and the k actions in between to the context's change."""
        if config.actions:
            assert action_dim is not None, "build() requests it"
            hidden = config.hidden or dim
            self.needs = frozenset({"actions"})
            self.transitions = nn.ModuleList(
                MLP([dim + k * action_dim, hidden, dim], batch_norm=False, last="affine") for k in ahead
            )

    @classmethod
    def build(cls, features: FeatureSpec, config: CPCConfig, data: DataSpec) -> Objective:
        if config.kind == "patches":
            return PatchCPC(
                features,
                steps=config.steps,
                skip=config.skip,
                context_layers=config.context_layers,
                hidden=config.hidden,
                layer_norm=config.layer_norm,
            )
        if config.actions and data.action_dim is None:
            raise ValueError(
                "objectives.cpc.actions must be false for data without actions, got true: recorded frames and replays "
                "have them; elsewhere give data=DataSpec(action_dim=...)"
            )
        return cls(features, config, action_dim=data.action_dim)

    def forward(self, online: list[Features], target: list[Features], batch: BatchInfo) -> Result:
        context, *later = self._embeddings(online)
        if self.target_views:
            later = [embedding.detach() for embedding in self._embeddings(target)]
        predictions = self._predictions(context, batch.actions)
        return self.contrast(list(zip(predictions, later, strict=True)), context.detach())

    def _embeddings(self, views: list[Features]) -> list[Tensor]:
        vectors = [widened(view.vector) for view in views]
        return [F.layer_norm(vector, vector.shape[-1:]) for vector in vectors] if self.config.layer_norm else vectors

    def _predictions(self, context: Tensor, actions: Tensor | None) -> list[Tensor]:
        """``(B, D)`` for each step: the context, moved by the actions up to it if they are used."""
        if self.transitions is None:
            return [context] * self.config.steps
        assert actions is not None
        taken = actions.to(context.dtype)
        return [
            context + change(torch.cat([context, taken[:, :k].flatten(1)], 1))
            for k, change in enumerate(self.transitions, start=1)
        ]

    def momentum(self, progress: Tensor) -> Tensor:
        return torch.full_like(progress, self.config.momentum)


METHOD = Method(
    "cpc",
    CPC,
    CPCConfig,
    paper="van den Oord et al. 2018, arXiv 1807.03748",
    summary="Prediction of later observations, optionally from the actions in between, or of an image's lower patches.",
    instead="objectives.cpc.actions false",
)
