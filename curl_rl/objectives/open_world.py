"""ORE's contrastive clustering (Joseph et al. 2021, "Towards open world object detection", arXiv 2103.02603).

A sample is drawn to the prototype of its class and kept a margin away from those of the others. Prototypes are running
means of the classes' features, so that a class which is taught later finds room between those that exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from curl_rl.encoders import Features, FeatureSpec
from curl_rl.losses import embedding_std, prototype_margin
from curl_rl.losses.half_precision import widened
from curl_rl.objectives.banks import ClassRings
from curl_rl.objectives.base import BatchInfo, DataSpec, Objective, Result, ViewSpec
from curl_rl.objectives.method import Method
from curl_rl.objectives.metric import refuse_one_class
from curl_rl.ranges import at_least, check_ranges, positive, within


@dataclass(frozen=True)
class OpenWorldConfig:
    """Margin and prototypes of contrastive clustering."""

    margin: Annotated[float, positive] = 10.0
    """Distance beyond which the prototypes of other classes no longer repel, in units of the features."""
    queue: Annotated[int, at_least(1)] = 20
    """Newest features kept of each class; their mean moves the prototype."""
    burn_in: Annotated[int, at_least(1)] = 1000
    """Steps before the first prototypes: the features of the first steps mean little."""
    every: Annotated[int, at_least(1)] = 3000
    """Steps between moves of the prototypes after that. A class that appears later gets its prototype then."""
    momentum: Annotated[float, within("[0, 1]")] = 0.99
    """Share of a prototype that remains when it moves toward its class's mean."""

    def __post_init__(self) -> None:
        check_ranges(self, "objectives.open_world")


class OpenWorldClusters(Objective):
    """Features near the prototype of their class, a margin away from the others.

    It adds no head: it shapes the encoder's vector itself. A negative label stands for none. In ORE the samples are the
    foreground regions of an object detector (:mod:`curl_rl.vision.detection`), and the unknown is a class of its own.

    Args:
        features: sizes of the encoder's features.
        classes: number of classes, those that appear later included.
        config: settings.
    """

    online_views = (ViewSpec(0),)
    batch_dependent = False
    needs = frozenset({"labels"})

    prototypes: Tensor
    """``(classes, dim)``; zeros for a class that has none yet."""
    moves: Tensor
    """``(classes,)`` integers: how often each prototype has moved; 0 for a class that has none yet."""
    steps: Tensor
    """Number of steps, a scalar integer."""

    def __init__(self, features: FeatureSpec, classes: int, config: OpenWorldConfig = OpenWorldConfig()) -> None:
        super().__init__()
        self.config = config
        self.store = ClassRings(classes, config.queue, features.dim)
        self.register_buffer("prototypes", torch.zeros(classes, features.dim))
        self.register_buffer("moves", torch.zeros(classes, dtype=torch.int64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @classmethod
    def build(cls, features: FeatureSpec, config: OpenWorldConfig, data: DataSpec) -> OpenWorldClusters:
        if data.classes is None:
            raise ValueError(
                "objectives.open_world needs the number of classes, got none: give data=DataSpec(classes=...)"
            )
        refuse_one_class(data, "take simclr")
        return cls(features, data.classes, config)

    def forward(self, online: list[Features], target: list[Features], batch: BatchInfo) -> Result:
        vectors, labels = widened(online[0].vector), batch.labels
        if labels is None or len(labels) != len(vectors):
            raise ValueError(
                f"labels must be ({len(vectors)},), one for each sample, got "
                f"{'none' if labels is None else tuple(labels.shape)}"
            )
        # The products of a faster cdist cancel where a feature is near its prototype.
        distance = torch.cdist(vectors, self.prototypes.to(vectors.dtype), compute_mode="donot_use_mm_for_euclid_dist")
        known = self.moves > 0
        loss = prototype_margin(distance, labels, known, self.config.margin)
        return Result(
            loss, self._metrics(distance.detach(), labels, known, vectors.detach()), (vectors.detach(), labels)
        )

    def _metrics(self, distance: Tensor, labels: Tensor, known: Tensor, vectors: Tensor) -> dict[str, Tensor]:
        own = labels[:, None] == torch.arange(len(known), device=labels.device)
        counts = (own & known).any(1) & (known.sum() > 1)
        other = distance.masked_fill(own | ~known, torch.inf).amin(1)
        total = counts.sum().clamp_min(1)

        def mean(values: Tensor) -> Tensor:
            return torch.where(counts, values, 0).sum() / total

        nearest = torch.where(own, distance, 0).sum(1)
        return {
            "own_distance": mean(nearest),
            "other_distance": mean(other),
            "accuracy": mean((nearest < other).to(distance.dtype)),
            "embedding_std": embedding_std(vectors),
        }

    @torch.no_grad()
    def after_step(self, carry: tuple[Tensor, Tensor], momentum: Tensor) -> None:
        """Stores the features; moves the prototypes if their time has come."""
        c = self.config
        self.store.push(*carry)
        self.steps += 1
        due = (self.steps >= c.burn_in) & ((self.steps - c.burn_in) % c.every == 0)
        moved = due & (self.store.pushed > 0)
        means = self.store.means().to(self.prototypes.dtype)
        kept = torch.where(self.moves > 0, c.momentum, 0.0)[:, None]
        self.prototypes.copy_(torch.where(moved[:, None], kept * self.prototypes + (1 - kept) * means, self.prototypes))
        self.moves += moved


METHOD = Method(
    "open_world",
    OpenWorldClusters,
    OpenWorldConfig,
    paper="Joseph et al. 2021, arXiv 2103.02603",
    summary="Features near the prototype of their class: the clusters of an open-world detector.",
)
