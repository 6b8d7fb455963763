"""Max-margin contrastive loss (Hadsell et al. 2006, CVPR: Dimensionality reduction by learning an invariant mapping).

Embeddings of one class attract each other; those of different classes repel each other until they are a margin apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from curl_rl.encoders import FeatureSpec
from curl_rl.losses import MarginLoss, pair_margin
from curl_rl.objectives.method import Method
from curl_rl.objectives.metric import DistanceLearning, MetricConfig
from curl_rl.ranges import check_ranges, within


@dataclass(frozen=True)
class PairMarginConfig(MetricConfig):
    """Margin and head of the max-margin loss."""

    margin: Annotated[float, within("(0, 4]")] = 2.0
    """Squared distance beyond which embeddings of different classes no longer repel. For embeddings of length 1 it is
    at most 4, and 2 at a right angle."""

    def __post_init__(self) -> None:
        check_ranges(self, "objectives.pair_margin")


class PairMargin(DistanceLearning):
    """Distances of pairs: small within a class, at least a margin between classes."""

    def __init__(self, features: FeatureSpec, config: PairMarginConfig = PairMarginConfig()) -> None:
        super().__init__(features, config)
        self.margin = config.margin

    def distance_loss(self, distance: Tensor, classes: Tensor) -> MarginLoss:
        return pair_margin(distance, classes, self.margin)


METHOD = Method(
    "pair_margin",
    PairMargin,
    PairMarginConfig,
    paper="Hadsell et al. 2006, CVPR",
    summary="Pairs of one class close together, pairs of different classes a margin apart.",
    instead="objectives.pair_margin.supervised false",
)
