"""Multi-class N-pair loss (Sohn 2016, NeurIPS: Improved deep metric learning with multi-class N-pair loss objective).

The first view of a sample should have a larger inner product with second views of its class than with those of all
other classes, in one softmax. Without labels, each sample is its own class, as in CURL with W = I and one encoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch

from curl_rl.encoders import Features, FeatureSpec
from curl_rl.losses import PairScores, alignment, embedding_std, n_pair, pair_accuracy
from curl_rl.objectives.base import BatchInfo, Result
from curl_rl.objectives.method import Method
from curl_rl.objectives.metric import MetricConfig, MetricLearning
from curl_rl.ranges import at_least, check_ranges


@dataclass(frozen=True)
class NPairConfig(MetricConfig):
    """Head and regularization of the N-pair loss."""

    regularization: Annotated[float, at_least(0)] = 0.002
    """Weight of half the embeddings' mean squared length, which nothing else bounds; as in TensorFlow's
    npairs_loss."""

    def __post_init__(self) -> None:
        check_ranges(self, "objectives.n_pair")


class NPair(MetricLearning):
    """Inner products of first views, the anchors, with second views, the keys: highest within a class."""

    def __init__(self, features: FeatureSpec, config: NPairConfig = NPairConfig()) -> None:
        super().__init__(features, config)
        self.regularization = config.regularization

    def forward(self, online: list[Features], target: list[Features], batch: BatchInfo) -> Result:
        embeddings, classes = self.embed(online, batch)
        (anchors, keys), (classes, _) = embeddings.chunk(2), classes.chunk(2)
        similarity = anchors @ keys.T
        square = embeddings.square().sum(1).mean()
        loss = n_pair(similarity, classes if "labels" in self.needs else None) + self.regularization / 2 * square
        same, scores = classes == classes[:, None], similarity.detach()
        best = PairScores(scores.masked_fill(~same, -torch.inf).amax(1), scores.masked_fill(same, -torch.inf))
        metrics = {
            "accuracy": pair_accuracy(best),
            "embedding_norm": square.detach().sqrt(),
            "embedding_std": embedding_std(anchors.detach()),
            "alignment": alignment(anchors.detach(), keys.detach()),
        }
        return Result(loss, metrics)


METHOD = Method(
    "n_pair",
    NPair,
    NPairConfig,
    paper="Sohn 2016, NeurIPS",
    summary="Inner products highest within a class, in one softmax over the batch.",
    instead="objectives.n_pair.supervised false",
)
