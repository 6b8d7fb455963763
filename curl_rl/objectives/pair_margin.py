"""Max-margin contrastive loss (Hadsell et al. 2006, CVPR: Dimensionality reduction by learning an invariant mapping).

Embeddings of one class attract each other; those of different classes repel each other until they are a margin apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch.nn.functional as F

from curl_rl.encoders import Features, FeatureSpec
from curl_rl.losses import alignment, class_accuracy, embedding_std, pair_margin, squared_distances
from curl_rl.objectives.base import BatchInfo, Result
from curl_rl.objectives.method import Method
from curl_rl.objectives.metric import MetricConfig, MetricLearning
from curl_rl.ranges import check_ranges, within


@dataclass(frozen=True)
class PairMarginConfig(MetricConfig):
    """Margin and head of the max-margin loss."""

    margin: Annotated[float, within("(0, 4]")] = 2.0
    """Squared distance beyond which embeddings of different classes no longer repel. For embeddings of length 1 it is
    at most 4, and 2 at a right angle."""

    def __post_init__(self) -> None:
        check_ranges(self, "objectives.pair_margin")


class PairMargin(MetricLearning):
    """Distances of pairs: small within a class, at least a margin between classes."""

    def __init__(self, features: FeatureSpec, config: PairMarginConfig = PairMarginConfig()) -> None:
        super().__init__(features, config)
        self.margin = config.margin

    def forward(self, online: list[Features], target: list[Features], batch: BatchInfo) -> Result:
        embeddings, classes = self.embed(online, batch)
        distance = squared_distances(F.normalize(embeddings))
        loss, active = pair_margin(distance, classes, self.margin)
        first, second = embeddings.detach().chunk(2)
        metrics = {
            "accuracy": class_accuracy(-distance.detach(), classes),
            "active": active,
            "embedding_std": embedding_std(first),
            "alignment": alignment(first, second),
        }
        return Result(loss, metrics)


METHOD = Method(
    "pair_margin",
    PairMargin,
    PairMarginConfig,
    paper="Hadsell et al. 2006, CVPR",
    summary="Pairs of one class close together, pairs of different classes a margin apart.",
    instead="objectives.pair_margin.supervised false",
)
