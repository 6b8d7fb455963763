"""Objectives that each use one part of the interface; none is a real method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curl_rl.encoders import Features, FeatureSpec
from curl_rl.objectives import BatchInfo, DataSpec, Method, Objective, Result, ViewSpec


@dataclass(frozen=True)
class DummyConfig:
    """Settings of every dummy."""

    scale: float = 1.0
    """Factor on the loss."""


class Clustered(Objective):
    """Classifies each image by the sign of its banked feature along the bank's first principal direction.

    It needs each sample's index, a pass over all data before the first epoch, and a clustering before every epoch.
    """

    online_views = (ViewSpec(0), ViewSpec(1))
    batch_dependent = False
    needs = frozenset({"indices", "epochs"})

    def __init__(self, features: FeatureSpec, config: DummyConfig = DummyConfig(), *, count: int) -> None:
        super().__init__()
        self.config = config
        self.classifier = nn.Linear(features.dim, 2)
        self.register_buffer("bank", torch.zeros(count, features.dim))
        self.register_buffer("assignment", torch.full((count,), -1))
        self.register_buffer("clusterings", torch.zeros((), dtype=torch.int64))

    @classmethod
    def build(cls, features: FeatureSpec, config: DummyConfig, data: DataSpec) -> Clustered:
        if data.count is None:
            raise ValueError(
                "objectives.clustered needs the number of samples, got none: give data=DataSpec(count=...)"
            )
        return cls(features, config, count=data.count)

    def forward(self, online: list[Features], target: list[Features], batch: BatchInfo) -> Result:
        assert batch.indices is not None
        cluster = self.assignment[batch.indices]
        losses = [F.cross_entropy(self.classifier(view.vector), cluster.clamp(min=0)) for view in online]
        loss = self.config.scale * torch.stack(losses).mean()
        return Result(loss, {"cross_entropy": loss.detach()}, (batch.indices, online[0].vector.detach()))

    def after_step(self, carry: Any, momentum: Tensor) -> None:
        indices, vectors = carry
        self.bank[indices] = vectors.to(self.bank.dtype)

    def wants_all(self, epoch: int) -> Literal["online", "target"] | None:
        return "online" if epoch == 0 else None

    def remember(self, features: Features, batch: BatchInfo) -> None:
        assert batch.indices is not None
        assert not torch.is_grad_enabled()
        self.bank[batch.indices] = features.vector.to(self.bank.dtype)

    def between_epochs(self, epoch: int, generator: torch.Generator) -> dict[str, Tensor]:
        direction = torch.randn(self.bank.shape[1], generator=generator, dtype=torch.float64).to(self.bank)
        self.assignment.copy_((self.bank - self.bank.mean(0)) @ direction > 0)
        self.clusterings += 1
        used = torch.stack([(self.assignment == cluster).any() for cluster in range(2)])
        return {"used": used.float().mean()}


class Labeled(Objective):
    """Cross-entropy of the labels."""

    online_views = (ViewSpec(0),)
    batch_dependent = False
    needs = frozenset({"labels"})

    def __init__(self, features: FeatureSpec, config: DummyConfig = DummyConfig(), *, classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(features.dim, classes)

    @classmethod
    def build(cls, features: FeatureSpec, config: DummyConfig, data: DataSpec) -> Labeled:
        if data.classes is None:
            raise ValueError(
                "objectives.labeled needs the number of classes, got none: give data=DataSpec(classes=...)"
            )
        return cls(features, config, classes=data.classes)

    def forward(self, online: list[Features], target: list[Features], batch: BatchInfo) -> Result:
        loss = F.cross_entropy(self.classifier(online[0].vector), batch.labels)
        return Result(loss, {"cross_entropy": loss.detach()})


class Dynamics(Objective):
    """Predicts the vectors one and three steps later from the current one and the actions in between."""

    online_views = (ViewSpec(0),)
    target_views = (ViewSpec(1, future=1), ViewSpec(0, future=3))
    batch_dependent = False
    needs = frozenset({"actions"})

    def __init__(self, features: FeatureSpec, config: DummyConfig = DummyConfig(), *, action_dim: int) -> None:
        super().__init__()
        self.predictors = nn.ModuleList(nn.Linear(features.dim + k * action_dim, features.dim) for k in (1, 3))

    @classmethod
    def build(cls, features: FeatureSpec, config: DummyConfig, data: DataSpec) -> Dynamics:
        if data.action_dim is None:
            raise ValueError(
                "objectives.dynamics needs the size of an action, got none: give data=DataSpec(action_dim=...)"
            )
        return cls(features, config, action_dim=data.action_dim)

    def forward(self, online: list[Features], target: list[Features], batch: BatchInfo) -> Result:
        assert batch.actions is not None
        losses = []
        for predictor, later, steps in zip(self.predictors, target, (1, 3), strict=True):
            given = torch.cat([online[0].vector, batch.actions[:, :steps].flatten(1).to(online[0].vector)], 1)
            losses.append(F.mse_loss(predictor(given), later.vector.detach()))
        loss = torch.stack(losses).mean()
        return Result(loss, {"error": loss.detach()})


class Local(Objective):
    """Compares the vector with the spatial means of the most local map and of the last one."""

    online_views = (ViewSpec(0), ViewSpec(1))
    batch_dependent = False
    reads_maps = True

    def __init__(self, features: FeatureSpec, config: DummyConfig = DummyConfig()) -> None:
        super().__init__()
        local = (features.middle_shape or features.map_shape)[0]
        self.of_local = nn.Linear(local, features.dim)
        self.of_map = nn.Linear(features.map_shape[0], features.dim)

    def forward(self, online: list[Features], target: list[Features], batch: BatchInfo) -> Result:
        first, second = online
        local, last = first.local.mean((2, 3)), second.map.mean((2, 3))
        loss = F.mse_loss(self.of_local(local), second.vector) + F.mse_loss(self.of_map(last), first.vector)
        return Result(loss, {"error": loss.detach()})


class Prototypes(Objective):
    """Pulls each vector toward similar prototypes, which are rescaled to unit length after each step."""

    online_views = (ViewSpec(0),)
    batch_dependent = False
    projected = frozenset({"prototypes"})

    def __init__(self, features: FeatureSpec, config: DummyConfig = DummyConfig()) -> None:
        super().__init__()
        self.prototypes = nn.Parameter(F.normalize(torch.randn(3, features.dim)))

    def forward(self, online: list[Features], target: list[Features], batch: BatchInfo) -> Result:
        loss = -torch.logsumexp(F.normalize(online[0].vector) @ self.prototypes.T, 1).mean()
        return Result(loss, {"similarity": -loss.detach()})

    def after_step(self, carry: Any, momentum: Tensor) -> None:
        with torch.no_grad():
            self.prototypes.copy_(F.normalize(self.prototypes))


PAPER = "of these tests alone"
DUMMIES = {
    "clustered": Method("clustered", Clustered, DummyConfig, PAPER, "Needs indices and epochs."),
    "labeled": Method("labeled", Labeled, DummyConfig, PAPER, "Needs labels."),
    "dynamics": Method("dynamics", Dynamics, DummyConfig, PAPER, "Needs futures and the actions between."),
    "local": Method("local", Local, DummyConfig, PAPER, "Compares places."),
    "prototypes": Method("prototypes", Prototypes, DummyConfig, PAPER, "Projects its parameters."),
}
"""For tests that need them to register for their own duration, with ``registry.register``."""
