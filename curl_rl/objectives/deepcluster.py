"""DeepCluster v2: classification of images by their cluster (Caron et al. 2020, arXiv 2006.09882, appendix).

Before every epoch k-means clusters the embeddings of all images, several times. During the epoch each view of an image
is classified by the similarity of its embedding to the centroids; the class is the image's cluster. Version 2 of
DeepCluster (Caron et al. 2018, arXiv 1807.05520) classifies by the centroids themselves, so that no classifier has to
be relearned, and clusters the embeddings that the previous epoch's steps have computed anyway.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from curl_rl.encoders import Features, FeatureSpec
from curl_rl.encoders.heads import MLP
from curl_rl.losses import alignment, cluster_accuracy, cluster_cross_entropy, embedding_std
from curl_rl.losses.half_precision import widened
from curl_rl.objectives.banks import Table
from curl_rl.objectives.base import BatchInfo, DataSpec, Objective, Result, ViewSpec
from curl_rl.objectives.clustering import Clusters, kmeans, normalized_mutual_information
from curl_rl.objectives.method import Method
from curl_rl.ranges import at_least, check_ranges, positive


@dataclass(frozen=True)
class DeepClusterConfig:
    """Clusterings and head of DeepCluster v2. The defaults are the released code's for ImageNet."""

    clusters: Annotated[int, at_least(1)] = 3000
    """Number of clusters, at most the number of images."""
    clusterings: Annotated[int, at_least(1)] = 3
    """Number of independent clusterings, each the target of its own loss."""
    iterations: Annotated[int, at_least(1)] = 10
    """Iterations of k-means before each epoch."""
    temperature: Annotated[float, positive] = 0.1
    """Temperature of the similarities to the centroids."""
    hidden: Annotated[int | None, at_least(1)] = None
    """Width of the head's hidden layer. [default: the features' own, as the paper's 2048]"""
    dim: Annotated[int, at_least(1)] = 128
    """Size of the embeddings and the centroids."""
    local_views: Annotated[int, at_least(0)] = 0
    """Number of additional views that are classified but not clustered, usually smaller crops (multi-crop, section
    3.2). It must equal augment.local_views."""

    def __post_init__(self) -> None:
        check_ranges(self, "objectives.deepcluster")


class DeepCluster(Objective):
    """Classification of every view by the cluster of its image, by the similarity to the clusters' centroids.

    Each of the first two views has a bank with the newest embedding of every image. A pass over all images fills both
    before the first epoch; after that the steps overwrite them. The clusterings take turns with the banks.

    Args:
        features: sizes of the encoder's features.
        config: settings.
        count: number of images.

    Raises:
        ValueError: more clusters than images; in ``forward``, a batch of 1; in ``between_epochs``, more clusters than
            distinct embeddings.
    """

    views_together = True
    needs = frozenset({"indices", "epochs"})

    centroids: Tensor
    """``(clusterings, clusters, dim)`` of length 1, or 0 before the first clustering."""
    assignment: Tensor
    """``(clusterings, count)``, each image's cluster, or -1."""

    def __init__(self, features: FeatureSpec, config: DeepClusterConfig = DeepClusterConfig(), *, count: int) -> None:
        super().__init__()
        if config.clusters > count:
            raise ValueError(
                f"objectives.deepcluster.clusters must be at most {count}, the number of images, got {config.clusters}"
            )
        self.config = config
        self.online_views = tuple(ViewSpec(index) for index in range(2 + config.local_views))
        hidden = config.hidden if config.hidden is not None else features.dim
        self.head = MLP([features.dim, hidden, config.dim], batch_norm=True, last="affine")
        self.first_bank, self.second_bank = Table(count, config.dim), Table(count, config.dim)
        self.register_buffer("centroids", torch.zeros(config.clusterings, config.clusters, config.dim))
        self.register_buffer("assignment", torch.full((config.clusterings, count), -1))

    @classmethod
    def build(cls, features: FeatureSpec, config: DeepClusterConfig, data: DataSpec) -> DeepCluster:
        if data.count is None:
            raise ValueError(
                "objectives.deepcluster needs the number of images, got none: give data=DataSpec(count=...)"
            )
        return cls(features, config, count=data.count)

    def forward(self, online: list[Features], target: list[Features], batch: BatchInfo) -> Result:
        assert batch.indices is not None
        size = len(online[0].vector)
        if size < 2:
            raise ValueError(f"the head's batch norm needs at least 2 samples in a batch (batch_size), got {size}")
        # All views together: batch norm in the head takes its statistics over all crops, as in the released code.
        embeddings = self._embed(torch.cat([view.vector for view in online]))
        clusters = self.assignment[:, batch.indices].repeat(1, len(online))  # of every row of the embeddings
        # (clusterings, views · B, clusters). Expanded, because matmul would compute the transpose of two dimensions by
        # three, and copy it.
        copies = embeddings.expand(self.config.clusterings, -1, -1)
        cosines = copies @ widened(self.centroids).transpose(1, 2)
        first, second = embeddings.detach().split(size)[:2]
        metrics = {
            "accuracy": cluster_accuracy(cosines, clusters),
            "embedding_std": embedding_std(first),
            "alignment": alignment(first, second),
        }
        loss = cluster_cross_entropy(cosines, clusters, self.config.temperature)
        return Result(loss, metrics, (batch.indices, first, second))

    def projection_head(self) -> MLP:
        return self.head

    def _embed(self, vectors: Tensor) -> Tensor:
        return F.normalize(widened(self.head(vectors)))

    def after_step(self, carry: Any, momentum: Tensor) -> None:
        indices, first, second = carry
        self.first_bank.update(indices, first, momentum=0)
        self.second_bank.update(indices, second, momentum=0)

    def wants_all(self, epoch: int) -> Literal["online", "target"] | None:
        return "online" if epoch == 0 else None

    def remember(self, features: Features, batch: BatchInfo) -> None:
        assert batch.indices is not None
        if len(features.vector) < 2:
            return  # batch norm in the head cannot embed a single image: this one has no cluster in the first epoch
        embeddings = self._embed(features.vector)
        for bank in (self.first_bank, self.second_bank):
            bank.update(batch.indices, embeddings, momentum=0)

    @torch.no_grad()
    def between_epochs(self, epoch: int, generator: torch.Generator) -> dict[str, Tensor]:
        used, stability = [], []
        for place, (centroids, assignment) in enumerate(zip(self.centroids, self.assignment, strict=True)):
            bank = (self.first_bank, self.second_bank)[place % 2]
            known = bank.known.nonzero()[:, 0]
            found = self._cluster(bank.embeddings[known], generator)
            used.append((found.assignment.bincount(minlength=len(centroids)) > 0).float().mean())
            before, had_one = assignment[known], assignment[known] >= 0
            if had_one.any():
                stability.append(normalized_mutual_information(before[had_one], found.assignment[had_one]))
            centroids.copy_(found.centroids)
            assignment.index_copy_(0, known, found.assignment)
        metrics = {"used": used, "stability": stability}
        return {name: torch.stack(values).mean() for name, values in metrics.items() if values}

    def _cluster(self, embeddings: Tensor, generator: torch.Generator) -> Clusters:
        c = self.config
        try:
            return kmeans(embeddings, c.clusters, generator, spherical=True, iterations=c.iterations)
        except ValueError as error:
            raise ValueError(
                f"the embeddings do not form objectives.deepcluster.clusters {c.clusters}: {error}"
            ) from None


METHOD = Method(
    "deepcluster",
    DeepCluster,
    DeepClusterConfig,
    paper="Caron et al. 2020, arXiv 2006.09882",
    summary="Classification of images by their cluster of the last epoch.",
    instead="swav",
)
