"""Barlow Twins: self-supervised learning by redundancy reduction (Zbontar et al. 2021, arXiv 2103.03230).

It has no negatives, no predictor and no slow copy: over the batch, each feature of one view's embedding should
correlate with itself in the other view, and with no other feature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from curl_rl.encoders import Features, FeatureSpec
from curl_rl.encoders.heads import MLP
from curl_rl.losses import alignment, cross_correlation, embedding_std, redundancy
from curl_rl.objectives.base import BatchInfo, Objective, Result, ViewSpec
from curl_rl.objectives.method import Method
from curl_rl.ranges import at_least, check_ranges, positive


@dataclass(frozen=True)
class BarlowConfig:
    """Projector and loss of Barlow Twins. The defaults are the paper's."""

    projector_layers: Annotated[int, at_least(1)] = 3
    """Number of layers of the projector."""
    dim: Annotated[int | None, at_least(1)] = None
    """Width of every layer of the projector, including the last: the method benefits from many features. [default: four
    times the encoder's, as 8192 is to ResNet-50's 2048]"""
    off_diagonal_weight: Annotated[float, at_least(0)] = 0.005
    """λ: weight of correlations between different features, relative to each feature's correlation with itself."""
    loss_scale: Annotated[float, positive] = 1.0
    """Factor on the loss, a sum over the features, and so on the gradient, for optimizers that do not rescale it."""

    def __post_init__(self) -> None:
        check_ranges(self, "objectives.barlow")


class BarlowTwins(Objective):
    """Makes the cross-correlation of two views' embeddings the identity matrix."""

    online_views = (ViewSpec(0), ViewSpec(1))

    def __init__(self, features: FeatureSpec, config: BarlowConfig = BarlowConfig()) -> None:
        super().__init__()
        self.config = config
        dim = config.dim if config.dim is not None else 4 * features.dim
        self.projector = MLP([features.dim, *[dim] * config.projector_layers], batch_norm=True, last="linear")

    def forward(self, online: list[Features], target: list[Features], batch: BatchInfo) -> Result:
        # One view at a time: batch norm takes its statistics over each view separately, as in the released code.
        first, second = (self.projector(view.vector) for view in online)
        correlation = cross_correlation(first, second)
        loss = self.config.loss_scale * redundancy(correlation, self.config.off_diagonal_weight)
        metrics = {
            "correlation": correlation.detach().diagonal().mean(),
            "embedding_std": embedding_std(first.detach()),
            "alignment": alignment(first.detach(), second.detach()),
        }
        return Result(loss, metrics)

    def projection_head(self) -> MLP:
        return self.projector


METHOD = Method(
    "barlow",
    BarlowTwins,
    BarlowConfig,
    paper="Zbontar et al. 2021, arXiv 2103.03230",
    summary="Decorrelated features that two views agree on.",
)
