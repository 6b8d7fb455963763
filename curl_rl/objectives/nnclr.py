"""NNCLR: contrast with nearest neighbors (Dwibedi et al. 2021, arXiv 2104.14548).

SimCLR's contrast between two views of an input, with one view's embedding replaced by its nearest neighbor among past
embeddings. Two views then also agree on what similar inputs have in common, which no augmentation shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from curl_rl.encoders import Features, FeatureSpec
from curl_rl.encoders.heads import MLP
from curl_rl.losses import alignment, contrastive_accuracy, embedding_std, info_nce
from curl_rl.losses.half_precision import widened
from curl_rl.objectives.banks import Ring
from curl_rl.objectives.base import BatchInfo, Objective, Result, ViewSpec
from curl_rl.objectives.method import Method
from curl_rl.ranges import at_least, check_ranges, positive


@dataclass(frozen=True)
class NNCLRConfig:
    """Queue and heads of NNCLR."""

    temperature: Annotated[float, positive] = 0.2
    """Temperature of the similarities. The default is solo-learn's."""
    queue: Annotated[int, at_least(1)] = 65536
    """Number of past embeddings to search for neighbors, at least one batch. It starts empty. The default is
    solo-learn's; a queue longer than an epoch holds earlier views of the same images, often the nearest neighbors."""
    projector_layers: Annotated[int, at_least(1)] = 3
    """Layers of the projector, each with batch norm."""
    hidden: Annotated[int | None, at_least(1)] = None
    """Width of the projector's hidden layers. [default: the features' own, as the paper's 2048]"""
    predictor_hidden: Annotated[int | None, at_least(1)] = None
    """Width of the predictor's hidden layer. [default: twice the features', as the paper's 4096]"""
    dim: Annotated[int, at_least(1)] = 256
    """Size of the embeddings."""

    def __post_init__(self) -> None:
        check_ranges(self, "objectives.nnclr")


class NNCLR(Objective):
    """Prediction of the nearest neighbor of one view's embedding from the other view, in both directions.

    The queue holds no made-up embeddings: while it is empty, each embedding is its own neighbor.

    Raises:
        ValueError: in ``forward``, the batch has 1 sample, or more than the queue holds.
    """

    online_views = (ViewSpec(0), ViewSpec(1))

    def __init__(self, features: FeatureSpec, config: NNCLRConfig = NNCLRConfig()) -> None:
        super().__init__()
        self.config = config
        hidden = config.hidden if config.hidden is not None else features.dim
        predictor_hidden = config.predictor_hidden if config.predictor_hidden is not None else 2 * features.dim
        sizes = [features.dim, *[hidden] * (config.projector_layers - 1), config.dim]
        # The last batch norm needs no shift: it would have no gradient, because the predictor's batch norm removes it.
        self.projector = MLP(sizes, batch_norm=True, last="scaled")
        self.predictor = MLP([config.dim, predictor_hidden, config.dim], batch_norm=True, last="affine")
        self.queue = Ring(config.queue, config.dim)

    def forward(self, online: list[Features], target: list[Features], batch: BatchInfo) -> Result:
        if (size := len(online[0].vector)) > self.config.queue:
            raise ValueError(
                f"objectives.nnclr.queue must be at least {size}, the samples of one batch, got {self.config.queue}"
            )
        # One view at a time: batch norm takes its statistics over each view separately.
        projections = [self.projector(view.vector) for view in online]
        predictions = [F.normalize(widened(self.predictor(projection))) for projection in projections]
        embeddings = [F.normalize(widened(projection.detach())) for projection in projections]
        neighbors = [self._nearest(embedding) for embedding in embeddings]
        # Equation 2 in both directions: row i holds the similarities of neighbor i to all predictions.
        pairs = zip(neighbors, reversed(predictions), strict=True)
        logits = [neighbor @ prediction.T / self.config.temperature for neighbor, prediction in pairs]
        metrics = {
            "accuracy": torch.stack([contrastive_accuracy(scores.detach()) for scores in logits]).mean(),
            "neighbor_similarity": (embeddings[0] * neighbors[0]).sum(1).mean(),
            "embedding_std": embedding_std(embeddings[0]),
            "alignment": alignment(embeddings[0], embeddings[1]),
        }
        # The first view alone enters the queue, as in lightly's and solo-learn's code.
        return Result(torch.stack([info_nce(scores) for scores in logits]).mean(), metrics, embeddings[0])

    def projection_head(self) -> MLP:
        return self.projector

    @torch.no_grad()
    def _nearest(self, embeddings: Tensor) -> Tensor:
        """The row of the queue that is most similar to each ``(B, D)`` embedding; the embedding if there is none."""
        valid = self.queue.valid
        similarity = embeddings @ widened(self.queue.embeddings).T
        nearest = self.queue.embeddings[similarity.masked_fill(~valid, -torch.inf).argmax(1)]
        return torch.where(valid.any(), widened(nearest), embeddings)

    def after_step(self, carry: Tensor, momentum: Tensor) -> None:
        self.queue.push(carry)


METHOD = Method(
    "nnclr",
    NNCLR,
    NNCLRConfig,
    paper="Dwibedi et al. 2021, arXiv 2104.14548",
    summary="Contrast between the nearest past neighbor of one view and the other view.",
)
