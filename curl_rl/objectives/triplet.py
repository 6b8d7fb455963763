"""Triplet loss (FaceNet: Schroff et al. 2015, arXiv 1503.03832), with its semi-hard mining and two others.

Each embedding should be nearer to those of its class than to those of other classes, by a margin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from curl_rl.encoders import FeatureSpec
from curl_rl.losses import MarginLoss, Mining, triplet
from curl_rl.objectives.method import Method
from curl_rl.objectives.metric import DistanceLearning, MetricConfig
from curl_rl.ranges import check_ranges, within


@dataclass(frozen=True)
class TripletConfig(MetricConfig):
    """Margin, mining and head of the triplet loss. Margin and mining are FaceNet's."""

    margin: Annotated[float, within("(0, 4]")] = 0.2
    """By how much the squared distance to another class, from 0 to 4 for embeddings of length 1, must exceed that
    within the class."""
    mining: Mining = "semi_hard"
    """Triplets that count. all: every one of the batch. semi_hard: each pair of a class, with the nearest embedding of
    another class that is farther away than its partner. hard: each embedding, with the farthest of its class and the
    nearest of another (Hermans et al. 2017, arXiv 1703.07737)."""

    def __post_init__(self) -> None:
        check_ranges(self, "objectives.triplet")


class Triplet(DistanceLearning):
    """Distances of triplets: smaller within a class than between classes, by a margin."""

    def __init__(self, features: FeatureSpec, config: TripletConfig = TripletConfig()) -> None:
        super().__init__(features, config)
        self.config = config

    def distance_loss(self, distance: Tensor, classes: Tensor) -> MarginLoss:
        return triplet(distance, classes, self.config.margin, self.config.mining)


METHOD = Method(
    "triplet",
    Triplet,
    TripletConfig,
    paper="Schroff et al. 2015, arXiv 1503.03832",
    summary="Each embedding nearer to its class than to other classes, by a margin.",
    instead="objectives.triplet.supervised false",
)
