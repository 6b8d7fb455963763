"""One sound objective, and others that each break one rule of the interface by a plausible mistake."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from curl_rl.encoders import Features, FeatureSpec
from curl_rl.objectives import BatchInfo, DataSpec, Objective, Result, ViewSpec
from curl_rl.objectives.momentum import momentum_buffers, move_towards

Views = list[Features]
NO_DATA = DataSpec()


@dataclass(frozen=True)
class Settings:
    """Settings of all of them."""

    dim: int = 4
    """Size of the embeddings."""


class Sound(Objective):
    """Makes the head's embedding of one view equal that of the slow head for another view."""

    online_views = (ViewSpec(0),)
    target_views = (ViewSpec(1),)
    batch_dependent = False

    def __init__(self, features: FeatureSpec, config: Settings = Settings()) -> None:
        super().__init__()
        self.head = nn.Linear(features.dim, config.dim)
        self.key_head = momentum_buffers(self.head)
        self.register_buffer("newest", torch.zeros(config.dim))

    def errors(self, online: Views, target: Views) -> Tensor:
        """``(B,)``."""
        with torch.no_grad():
            key = self.key_head(target[0].vector)
        return (self.head(online[0].vector) - key).square().mean(1)

    def forward(self, online: Views, target: Views, batch: BatchInfo) -> Result:
        loss = self.errors(online, target).mean()
        return Result(loss, {"error": loss.detach()}, online[0].vector.detach())

    def after_step(self, carry: Any, momentum: Tensor) -> None:
        move_towards(self.key_head.buffers(), self.head.parameters(), 1 - momentum)
        self.newest.copy_(carry.mean())


class Altered(Sound):
    """A sound loss plus ``more``."""

    def more(self, online: Views, target: Views, batch: BatchInfo) -> Any:
        return 0.0

    def forward(self, online: Views, target: Views, batch: BatchInfo) -> Result:
        result = super().forward(online, target, batch)
        loss = result.loss + self.more(online, target, batch)
        return Result(loss, {"error": loss.detach()}, result.carry)


# ---- declared


class NoViews(Objective):
    def __init__(self, features: FeatureSpec, config: Settings = Settings()) -> None:
        super().__init__()


class ViewsByNumber(Sound):
    online_views = (0,)  # type: ignore[assignment]


class UnknownNeed(Sound):
    needs = frozenset({"label"})  # type: ignore[arg-type]


class ProjectsNothing(Sound):
    projected = frozenset({"prototypes"})


class HiddenNeed(Altered):
    def more(self, online: Views, target: Views, batch: BatchInfo) -> Any:
        assert batch.labels is not None, "labels"
        return (batch.labels * online[0].vector[:, 0]).mean()


class HiddenActions(Altered):
    def more(self, online: Views, target: Views, batch: BatchInfo) -> Any:
        return (batch.actions[:, 0, 0] * online[0].vector[:, 0]).mean()  # type: ignore[index]


class MomentumAsNumber(Sound):
    def momentum(self, progress: Tensor) -> Tensor:
        return 0.99  # type: ignore[return-value]


class MomentumAboveOne(Sound):
    def momentum(self, progress: Tensor) -> Tensor:
        return 1 + progress


class ReadsWhenTriedOut(Sound):
    def try_out(self, features: FeatureSpec, batch_size: int, data: DataSpec = NO_DATA) -> None:
        super().try_out(features, batch_size, data)
        torch.zeros((), device="meta").item()


class Contrast(Sound):
    """Makes each embedding differ from the mean of the batch."""

    batch_dependent = True

    def errors(self, online: Views, target: Views) -> Tensor:
        error = super().errors(online, target)
        return error - (error - error.mean()).square()


class TriesOutAnything(Contrast):
    def try_out(self, features: FeatureSpec, batch_size: int, data: DataSpec = NO_DATA) -> None:
        pass


# ---- forward


class LossPerSample(Sound):
    def forward(self, online: Views, target: Views, batch: BatchInfo) -> Result:
        return Result(self.errors(online, target), {}, online[0].vector.detach())


class NoGradient(Sound):
    def forward(self, online: Views, target: Views, batch: BatchInfo) -> Result:
        return Result(self.errors(online, target).mean().detach(), {}, online[0].vector.detach())


class LogOfNegative(Altered):
    def more(self, online: Views, target: Views, batch: BatchInfo) -> Any:
        return online[0].vector.log().mean()


class AttachedMetric(Sound):
    def forward(self, online: Views, target: Views, batch: BatchInfo) -> Result:
        loss = self.errors(online, target).mean()
        return Result(loss, {"error": loss}, online[0].vector.detach())


class MetricAsNumber(Sound):
    def forward(self, online: Views, target: Views, batch: BatchInfo) -> Result:
        result = super().forward(online, target, batch)
        return Result(result.loss, {"error": 1.0}, result.carry)  # type: ignore[dict-item]


class MetricNotANumber(Sound):
    def forward(self, online: Views, target: Views, batch: BatchInfo) -> Result:
        result = super().forward(online, target, batch)
        return Result(result.loss, {"error": result.loss.detach() / 0 - torch.inf}, result.carry)


class CarriesTheGraph(Sound):
    def forward(self, online: Views, target: Views, batch: BatchInfo) -> Result:
        result = super().forward(online, target, batch)
        return Result(result.loss, result.metrics, self.head(online[0].vector))


class EnqueuesInForward(Altered):
    def more(self, online: Views, target: Views, batch: BatchInfo) -> Any:
        self.newest.copy_(target[0].vector.mean())
        return 0.0


class RemembersInAnAttribute(Altered):
    seen: deque[float] = deque()

    def __init__(self, features: FeatureSpec, config: Settings = Settings()) -> None:
        super().__init__(features, config)
        self.seen = deque()

    def more(self, online: Views, target: Views, batch: BatchInfo) -> Any:
        self.seen.append(1.0)
        return 0.0


class GlobalGenerator(Altered):
    def more(self, online: Views, target: Views, batch: BatchInfo) -> Any:
        return (torch.rand(()) * online[0].vector).mean()


class NumpysGenerator(Altered):
    def more(self, online: Views, target: Views, batch: BatchInfo) -> Any:
        return np.random.uniform() * online[0].vector.mean()


class WritesIntoItsInputs(Altered):
    def more(self, online: Views, target: Views, batch: BatchInfo) -> Any:
        target[0].vector.mul_(0.5)
        return 0.0


class Dropout(Altered):
    def more(self, online: Views, target: Views, batch: BatchInfo) -> Any:
        return online[0].vector.mean() if self.training else 0.0


class HostSync(Altered):
    def more(self, online: Views, target: Views, batch: BatchInfo) -> Any:
        return online[0].vector.mean() / max(online[0].vector.detach().abs().max().item(), 1.0)


class HostSyncAfterTheStep(Sound):
    def after_step(self, carry: Any, momentum: Tensor) -> None:
        if momentum < 1:
            super().after_step(carry, momentum)


class MasksByIndex(Altered):
    def more(self, online: Views, target: Views, batch: BatchInfo) -> Any:
        return online[0].vector[online[0].vector > 0].sum() / online[0].vector.numel()


class OrderMatters(Altered):
    batch_dependent = True

    def more(self, online: Views, target: Views, batch: BatchInfo) -> Any:
        return (online[0].vector * online[0].vector.roll(1, 0)).mean()


class MetricOfTheFirst(Sound):
    def forward(self, online: Views, target: Views, batch: BatchInfo) -> Result:
        result = super().forward(online, target, batch)
        return Result(result.loss, {"first": online[0].vector[0, 0].detach()}, result.carry)


class DependsOnTheBatch(Contrast):
    batch_dependent = False


class SaysItDependsOnTheBatch(Sound):
    batch_dependent = True


class RefusesHalves(Altered):
    def more(self, online: Views, target: Views, batch: BatchInfo) -> Any:
        if 1 < len(online[0].vector) < 5:
            raise ValueError("a batch must have at least 5 samples")
        return 0.0


class StandardDeviationOfOne(Contrast):
    def errors(self, online: Views, target: Views) -> Tensor:
        vector = online[0].vector
        return Sound.errors(self, online, target) + vector.sum(1) / vector.std(0).sum()


class RefusesOneInTwoLines(Contrast):
    def forward(self, online: Views, target: Views, batch: BatchInfo) -> Result:
        if len(online[0].vector) == 1:
            raise ValueError("one sample is\nno batch")
        return super().forward(online, target, batch)


class OverflowsInFloat32(Altered):
    def more(self, online: Views, target: Views, batch: BatchInfo) -> Any:
        return ((40 * online[0].vector[:, :2] + 100).exp().sum(1)).log().mean()


class Float64(Altered):
    def more(self, online: Views, target: Views, batch: BatchInfo) -> Any:
        return online[0].vector.double().square().mean()


# ---- gradients


class ForgetsAParameter(Sound):
    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": [self.head.weight]}]


class GroupsAParameterTwice(Sound):
    def parameter_groups(self) -> list[dict[str, Any]]:
        return [*super().parameter_groups(), {"params": [self.head.bias], "weight_decay": 0.0}]


class GroupsAStranger(Sound):
    def parameter_groups(self) -> list[dict[str, Any]]:
        return [*super().parameter_groups(), {"params": [nn.Parameter(torch.zeros(1))]}]


class UnusedParameter(Sound):
    def __init__(self, features: FeatureSpec, config: Settings = Settings()) -> None:
        super().__init__(features, config)
        self.temperature = nn.Parameter(torch.ones(()))


class _WrongBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.square().mean()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return gradients[0] * torch.ones(5, 6, dtype=gradients[0].dtype)


class WrongGradient(Altered):
    def more(self, online: Views, target: Views, batch: BatchInfo) -> Any:
        return _WrongBackward.apply(online[0].vector) if len(online[0].vector) == 5 else 0.0


class StopsAGradient(Sound):
    online_views = (ViewSpec(0), ViewSpec(1))

    def errors(self, online: Views, target: Views) -> Tensor:
        embeddings = [self.head(view.vector) for view in online]
        return (embeddings[0] - embeddings[1].detach()).square().mean(1) + embeddings[1].square().mean(1)


class TeachesTheTarget(Altered):
    def more(self, online: Views, target: Views, batch: BatchInfo) -> Any:
        return (online[0].vector * target[0].vector).mean()


class UnreadView(Sound):
    online_views = (ViewSpec(0), ViewSpec(1))


class ReadsMapsInSecret(Altered):
    def more(self, online: Views, target: Views, batch: BatchInfo) -> Any:
        return online[0].map.mean((1, 2, 3)).square().mean()


class LooksAtTheMapsSize(Altered):
    def more(self, online: Views, target: Views, batch: BatchInfo) -> Any:
        return (online[0].map.numel() * online[0].vector).mean()


class SaysItReadsMaps(Sound):
    reads_maps = True


class ScalesEverySecondLoss(Sound):
    def __init__(self, features: FeatureSpec, config: Settings = Settings()) -> None:
        super().__init__(features, config)
        self.calls = 0

    def errors(self, online: Views, target: Views) -> Tensor:
        self.calls += 1
        return super().errors(online, target) * (1 + self.calls % 2)


# ---- state


class LearnsAfterTheStep(Sound):
    def after_step(self, carry: Any, momentum: Tensor) -> None:
        super().after_step(carry, momentum)
        with torch.no_grad():
            self.head.bias.mul_(0.9)


class CountsInAnAttribute(Sound):
    def __init__(self, features: FeatureSpec, config: Settings = Settings()) -> None:
        super().__init__(features, config)
        self.count = 0

    def after_step(self, carry: Any, momentum: Tensor) -> None:
        super().after_step(carry, momentum)
        self.count += 1


class ForgetsToProject(Sound):
    projected = frozenset({"head.bias"})


class ProjectsAgainAndAgain(Sound):
    projected = frozenset({"head.bias"})

    def after_step(self, carry: Any, momentum: Tensor) -> None:
        super().after_step(carry, momentum)
        with torch.no_grad():
            self.head.bias.mul_(0.9)


class StateIsNotSaved(Altered):
    def __init__(self, features: FeatureSpec, config: Settings = Settings()) -> None:
        super().__init__(features, config)
        self.register_buffer("center", torch.zeros(()), persistent=False)

    def more(self, online: Views, target: Views, batch: BatchInfo) -> Any:
        return self.center * online[0].vector.mean()

    def after_step(self, carry: Any, momentum: Tensor) -> None:
        super().after_step(carry, momentum)
        self.center.copy_(carry.mean())


class UnsavedCounter(Sound):
    def __init__(self, features: FeatureSpec, config: Settings = Settings()) -> None:
        super().__init__(features, config)
        self.register_buffer("steps", torch.zeros(()), persistent=False)

    def after_step(self, carry: Any, momentum: Tensor) -> None:
        super().after_step(carry, momentum)
        self.steps += 1


class Banked(Sound):
    """Fills a buffer between epochs, correctly."""

    needs = frozenset({"indices", "epochs"})

    def __init__(self, features: FeatureSpec, config: Settings = Settings()) -> None:
        super().__init__(features, config)
        self.register_buffer("bank", torch.zeros(23, features.dim))

    def wants_all(self, epoch: int) -> Any:
        return "online"

    def remember(self, features: Features, batch: BatchInfo) -> None:
        self.bank[batch.indices] = features.vector.to(self.bank.dtype)

    def between_epochs(self, epoch: int, generator: torch.Generator) -> dict[str, Tensor]:
        self.bank += torch.rand((), generator=generator)
        return {"spread": self.bank.std()}


class ClustersByTheGlobalGenerator(Banked):
    def between_epochs(self, epoch: int, generator: torch.Generator) -> dict[str, Tensor]:
        self.bank += torch.rand(())
        return {}


class ReturnsAVector(Banked):
    def between_epochs(self, epoch: int, generator: torch.Generator) -> dict[str, Tensor]:
        return {"spread": self.bank.std(0)}


class BanksInAnAttribute(Banked):
    def __init__(self, features: FeatureSpec, config: Settings = Settings()) -> None:
        super().__init__(features, config)
        self.list: list[Tensor] = []

    def remember(self, features: Features, batch: BatchInfo) -> None:
        self.list.append(features.vector)


class WantsAllForNothing(Banked):
    def remember(self, features: Features, batch: BatchInfo) -> None:
        pass

    def between_epochs(self, epoch: int, generator: torch.Generator) -> dict[str, Tensor]:
        return {}


class HidesThatItNeedsEpochs(Banked):
    needs = frozenset({"indices"})


class BreaksInEvaluation(Sound):
    def forward(self, online: Views, target: Views, batch: BatchInfo) -> Result:
        result = super().forward(online, target, batch)
        if not torch.is_grad_enabled():
            self.newest += 1
        return result


class Raises(Sound):
    def after_step(self, carry: Any, momentum: Tensor) -> None:
        raise KeyError("queue")
