"""BYOL: bootstrap your own latent (Grill et al. 2020, arXiv 2006.07733).

It has no negatives: a predictor on the online side predicts how the slow copies of encoder and projector embed the
other view. The predictor and the slow copies together keep the embeddings from collapsing into one point.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from curl_rl.encoders import Features, FeatureSpec
from curl_rl.encoders.heads import MLP
from curl_rl.losses import alignment, cross_prediction, embedding_std
from curl_rl.objectives.base import BatchInfo, Objective, Result, ViewSpec
from curl_rl.objectives.method import Method
from curl_rl.objectives.momentum import cosine_momentum, momentum_buffers, move_towards
from curl_rl.ranges import at_least, check_ranges, within


@dataclass(frozen=True)
class BYOLConfig:
    """Heads and slow copy of BYOL. The defaults are the paper's."""

    hidden: Annotated[int | None, at_least(1)] = None
    """Width of the hidden layer of projector and predictor. [default: twice the features', as the paper's 4096 is to
    ResNet-50's 2048]"""
    dim: Annotated[int, at_least(1)] = 256
    """Size of the predicted embeddings."""
    momentum: Annotated[float, within("[0, 1]")] = 0.996
    """Initial momentum of the slow copies; it rises to 1 along a cosine. The paper uses 0.99 for 300 epochs. (In
    reinforcement learning agent.encoder_tau is used instead.)"""
    local_views: Annotated[int, at_least(0)] = 0
    """Number of additional views that predict the first two but are not predicted themselves, usually smaller crops
    (multi-crop: Caron et al. 2020, arXiv 2006.09882, section 3.2). For images it must equal augment.local_views."""

    def __post_init__(self) -> None:
        check_ranges(self, "objectives.byol")


class BYOL(Objective):
    """Predicts the slow copies' embedding of one view from the other view, in both directions."""

    target_views = (ViewSpec(0), ViewSpec(1))

    def __init__(self, features: FeatureSpec, config: BYOLConfig = BYOLConfig()) -> None:
        super().__init__()
        self.config = config
        self.online_views = tuple(ViewSpec(index) for index in range(2 + config.local_views))
        hidden = config.hidden if config.hidden is not None else 2 * features.dim
        self.projector = MLP([features.dim, hidden, config.dim], batch_norm=True, last="linear")
        self.predictor = MLP([config.dim, hidden, config.dim], batch_norm=True, last="linear")
        self.target_projector = momentum_buffers(self.projector)

    def forward(self, online: list[Features], target: list[Features], batch: BatchInfo) -> Result:
        # One view at a time: batch norm takes its statistics over each view separately, as in the released code.
        projections = [self.projector(view.vector) for view in online]
        predictions = [self.predictor(projection) for projection in projections]
        with torch.no_grad():
            targets = [self.target_projector(view.vector) for view in target]
        # Equation 2 in both directions, summed: a squared distance of unit vectors is 2 − 2 cos.
        loss = 2 * (2 + 2 * cross_prediction(predictions, targets))
        first, second = (projection.detach() for projection in projections[:2])
        metrics = {"embedding_std": embedding_std(first), "alignment": alignment(first, second)}
        return Result(loss, metrics)

    def projection_head(self) -> MLP:
        return self.projector

    def after_step(self, carry: None, momentum: Tensor) -> None:
        move_towards(self.target_projector.buffers(), self.projector.parameters(), 1 - momentum)

    def momentum(self, progress: Tensor) -> Tensor:
        return cosine_momentum(self.config.momentum, progress)


METHOD = Method(
    "byol",
    BYOL,
    BYOLConfig,
    paper="Grill et al. 2020, arXiv 2006.07733",
    summary="Prediction of a slow copy's embedding, no negatives.",
)
