"""SimSiam: simple Siamese networks (Chen & He 2020, arXiv 2011.10566).

It has no negatives and no slow copy: a predictor predicts one view's embedding from the other's, and no gradient flows
into the target. This stopped gradient keeps the embeddings from collapsing into one point.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from curl_rl.encoders import Features, FeatureSpec
from curl_rl.encoders.heads import MLP
from curl_rl.losses import alignment, cross_prediction, embedding_std
from curl_rl.objectives.base import BatchInfo, Objective, Result, ViewSpec
from curl_rl.objectives.method import Method
from curl_rl.ranges import at_least, check_ranges


@dataclass(frozen=True)
class SimSiamConfig:
    """Heads of SimSiam. The defaults are the paper's."""

    projector_layers: Annotated[int, at_least(1)] = 3
    """Number of layers of the projector; the paper uses 2 for CIFAR-10."""
    dim: Annotated[int | None, at_least(1)] = None
    """Width of the projector and size of the embeddings. [default: the features', as both are 2048 with ResNet-50]"""
    predictor_hidden: Annotated[int | None, at_least(1)] = None
    """Width of the predictor's hidden layer. [default: a quarter of dim, as the paper's 512 is to 2048]"""
    local_views: Annotated[int, at_least(0)] = 0
    """Number of additional views that predict the first two but are not predicted themselves, usually smaller crops
    (multi-crop: Caron et al. 2020, arXiv 2006.09882, section 3.2). For images it must equal augment.local_views."""

    def __post_init__(self) -> None:
        check_ranges(self, "objectives.simsiam")


class SimSiam(Objective):
    """Predicts one view's embedding from the other's, in both directions, with a stopped gradient."""

    def __init__(self, features: FeatureSpec, config: SimSiamConfig = SimSiamConfig()) -> None:
        super().__init__()
        self.online_views = tuple(ViewSpec(index) for index in range(2 + config.local_views))
        dim = config.dim if config.dim is not None else features.dim
        bottleneck = config.predictor_hidden if config.predictor_hidden is not None else max(1, dim // 4)
        sizes = [features.dim, *[dim] * config.projector_layers]
        self.projector = MLP(sizes, batch_norm=True, last="standardized")
        self.predictor = MLP([dim, bottleneck, dim], batch_norm=True, last="affine")

    def forward(self, online: list[Features], target: list[Features], batch: BatchInfo) -> Result:
        # One view at a time: batch norm takes its statistics over each view separately, as in the released code.
        projections = [self.projector(view.vector) for view in online]
        predictions = [self.predictor(projection) for projection in projections]
        targets = [projection.detach() for projection in projections[:2]]
        metrics = {"embedding_std": embedding_std(targets[0]), "alignment": alignment(*targets)}
        return Result(cross_prediction(predictions, targets), metrics)  # equation 2

    def projection_head(self) -> MLP:
        return self.projector

    def parameter_groups(self) -> list[dict[str, Any]]:
        # The predictor learns better if it keeps adapting to the latest embeddings (section 4.2).
        return [
            {"params": list(self.projector.parameters())},
            {"params": list(self.predictor.parameters()), "fixed_lr": True},
        ]


METHOD = Method(
    "simsiam",
    SimSiam,
    SimSiamConfig,
    paper="Chen & He 2020, arXiv 2011.10566",
    summary="Prediction of the other view's embedding behind a stopped gradient, no negatives.",
)
