"""What the methods of metric learning share: classes from labels or without, a head, and its settings.

Without labels, the two views of a sample are a class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from curl_rl.encoders import Features, FeatureSpec
from curl_rl.encoders.heads import MLP
from curl_rl.losses import MarginLoss, alignment, class_accuracy, embedding_std, squared_distances
from curl_rl.losses.half_precision import widened
from curl_rl.objectives.base import BatchInfo, DataSpec, Objective, Result, ViewSpec
from curl_rl.ranges import at_least, check_ranges


@dataclass(frozen=True)
class MetricConfig:
    """Settings that the methods of metric learning share."""

    supervised: bool = False
    """Take classes from labels. If False, each sample is its own class."""
    head_layers: Annotated[int, at_least(1)] = 2
    """Layers of the head; all but the last have a ReLU."""
    hidden: Annotated[int | None, at_least(1)] = None
    """Width of the head's hidden layers. [default: the features' own]"""
    dim: Annotated[int, at_least(1)] = 128
    """Size of the embeddings."""

    def __post_init__(self) -> None:
        check_ranges(self)


class MetricLearning(Objective):
    """A loss of two views' embeddings and their classes; subclasses define ``forward``.

    Raises:
        ValueError: in ``forward``, the batch has 1 sample.
    """

    online_views = (ViewSpec(0), ViewSpec(1))
    views_together = True

    def __init__(self, features: FeatureSpec, config: MetricConfig) -> None:
        super().__init__()
        self.needs = frozenset({"labels"}) if config.supervised else frozenset()
        hidden = config.hidden if config.hidden is not None else features.dim
        sizes = [features.dim, *[hidden] * (config.head_layers - 1), config.dim]
        self.head = MLP(sizes, batch_norm=False, last="affine")

    @classmethod
    def build(cls, features: FeatureSpec, config: Any, data: DataSpec) -> MetricLearning:
        if config.supervised:
            refuse_one_class(data, "set supervised false")
        return cls(features, config)

    def embed(self, online: list[Features], batch: BatchInfo) -> tuple[Tensor, Tensor]:
        """``(2B, D)`` embeddings of both views, those of the first first, and their ``(2B,)`` classes."""
        vectors = torch.cat([view.vector for view in online])
        labels = batch.labels if "labels" in self.needs else None
        classes = two_view_classes(len(online[0].vector), labels, vectors.device)
        return widened(self.head(vectors)), classes

    def projection_head(self) -> MLP:
        return self.head


class DistanceLearning(MetricLearning):
    """A loss of the squared distances of embeddings of length 1; subclasses define :meth:`distance_loss`."""

    def distance_loss(self, distance: Tensor, classes: Tensor) -> MarginLoss:
        """The method's loss.

        Args:
            distance: ``(N, N)`` squared distances of all embeddings.
            classes: ``(N,)``.
        """
        raise NotImplementedError

    def forward(self, online: list[Features], target: list[Features], batch: BatchInfo) -> Result:
        embeddings, classes = self.embed(online, batch)
        distance = squared_distances(F.normalize(embeddings))
        loss, active = self.distance_loss(distance, classes)
        first, second = embeddings.detach().chunk(2)
        metrics = {
            "accuracy": class_accuracy(-distance.detach(), classes),
            "active": active,
            "embedding_std": embedding_std(first),
            "alignment": alignment(first, second),
        }
        return Result(loss, metrics)


def two_view_classes(samples: int, labels: Tensor | None, device: torch.device) -> Tensor:
    """``(2B,)`` classes of the two views of each of B samples, the first views first.

    Args:
        samples: B.
        labels: ``(B,)`` integers; a negative one stands for none. A sample without a label is a class of its own; None,
            if there are no labels.
        device: device of the result.

    Raises:
        ValueError: fewer than 2 samples, so there are no negatives; or not one label for each.
    """
    if samples < 2:
        raise ValueError(f"negatives from the batch need at least 2 samples in a batch (batch_size), got {samples}")
    own = -1 - torch.arange(samples, device=device)
    if labels is None:
        return own.repeat(2)
    if labels.shape != own.shape:
        raise ValueError(f"labels must be ({samples},), one for each sample, got {tuple(labels.shape)}")
    return torch.where(labels < 0, own, labels).repeat(2)


def refuse_one_class(data: DataSpec, remedy: str) -> None:
    """Refuses labels that are all the same: nothing would keep the embeddings apart.

    Raises:
        ValueError: there is only one class; the message ends with the remedy.
    """
    if data.classes is not None and data.classes < 2:
        raise ValueError(f"labels must have at least 2 classes, got {data.classes}: {remedy}")
