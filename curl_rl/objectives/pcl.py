"""PCL: prototypical contrastive learning (Li et al. 2020, arXiv 2005.04966).

MoCo's contrast, plus a contrast with prototypes: before every epoch k-means clusters the slow copies' embeddings of all
images, into several numbers of clusters, and a query must find its image's centroid among all others. A tight cluster
gets a lower temperature than a loose one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curl_rl.encoders import Features, FeatureSpec
from curl_rl.encoders.heads import MLP
from curl_rl.losses import (
    alignment,
    bank_scores,
    cluster_accuracy,
    cluster_cross_entropy,
    embedding_std,
    nt_xent,
    pair_accuracy,
)
from curl_rl.losses.half_precision import widened
from curl_rl.objectives.banks import Ring, Table
from curl_rl.objectives.base import BatchInfo, DataSpec, Objective, Result, ViewSpec
from curl_rl.objectives.clustering import Clusters, concentration, kmeans, normalized_mutual_information
from curl_rl.objectives.method import Method
from curl_rl.objectives.momentum import momentum_buffers, move_towards
from curl_rl.ranges import at_least, check_ranges, one_or_more, positive, within


@dataclass(frozen=True)
class PCLConfig:
    """Clusterings, queue and head of PCL. The defaults are the released code's for ImageNet, version 2."""

    clusters: Annotated[tuple[int, ...], one_or_more(at_least(1), "be one or more positive integers")] = (
        25000,
        50000,
        100000,
    )
    """Numbers of clusters, one for each clustering, each at most the number of images."""
    warmup_epochs: Annotated[int, at_least(0)] = 20
    """Epochs at the start that contrast only images, not clusters."""
    iterations: Annotated[int, at_least(1)] = 20
    """Iterations of k-means before each epoch."""
    restarts: Annotated[int, at_least(1)] = 5
    """Number of times that k-means starts from other rows; the best result counts."""
    temperature: Annotated[float, positive] = 0.2
    """Temperature of the similarities to other images, and the mean of the clusters'. Version 1: 0.1."""
    queue: Annotated[int, at_least(1)] = 16384
    """Number of past keys kept as negatives, at least one batch. The queue starts empty."""
    head_layers: Annotated[int, at_least(1)] = 2
    """Layers of the head. Version 1: 1."""
    hidden: Annotated[int | None, at_least(1)] = None
    """Width of the head's hidden layers. [default: the features' own]"""
    dim: Annotated[int, at_least(1)] = 128
    """Size of the embeddings and the centroids."""
    momentum: Annotated[float, within("[0, 1]")] = 0.999
    """Momentum of the slow copies."""

    def __post_init__(self) -> None:
        check_ranges(self, "objectives.pcl")


class Clustering(nn.Module):
    """The clusters of all images of one k-means, as buffers; none before the first one.

    Args:
        clusters: number of clusters.
        count: number of images.
        dim: size of the embeddings.
        temperature: mean of the clusters' temperatures.
    """

    centroids: Tensor
    """``(clusters, dim)`` of length 1, or 0 before the first k-means."""
    temperatures: Tensor
    """``(clusters,)``: φ of equation 12."""
    assignment: Tensor
    """``(count,)``, each image's cluster, or -1."""

    def __init__(self, clusters: int, count: int, dim: int, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.register_buffer("centroids", torch.zeros(clusters, dim))
        self.register_buffer("temperatures", torch.full((clusters,), temperature))
        self.register_buffer("assignment", torch.full((count,), -1))

    def logits(self, embeddings: Tensor) -> Tensor:
        """``(B, clusters)``: the similarities to the centroids, each over its cluster's temperature."""
        return embeddings @ widened(self.centroids).T / self.temperatures

    @torch.no_grad()
    def replace(self, found: Clusters) -> None:
        """Takes the clusters of a k-means of all images."""
        self.centroids.copy_(F.normalize(found.centroids))
        self.temperatures.copy_(concentration(found, self.temperature))
        self.assignment.copy_(found.assignment)


class PCL(Objective):
    """Contrast of queries with slow keys, as in MoCo v2, and with the centroids of their images' clusters.

    The released code contrasts with the clusters of the batch and a sample of the others, so that a query's own cluster
    can also be one of its negatives; here every query is compared with all clusters once.

    Args:
        features: sizes of the encoder's features.
        config: settings.
        count: number of images.

    Raises:
        ValueError: more clusters than images; in ``forward``, the queue is smaller than a batch; in
            ``between_epochs``, more clusters than distinct embeddings.
    """

    online_views = (ViewSpec(0),)
    target_views = (ViewSpec(1),)
    needs = frozenset({"indices", "epochs"})
    batch_dependent = False

    clusterings: Iterable[Clustering]
    """One for each of the configured numbers of clusters."""

    def __init__(self, features: FeatureSpec, config: PCLConfig = PCLConfig(), *, count: int) -> None:
        super().__init__()
        if max(config.clusters) > count:
            raise ValueError(
                f"objectives.pcl.clusters must be at most {count}, the number of images, got {list(config.clusters)}"
            )
        self.config = config
        hidden = config.hidden if config.hidden is not None else features.dim
        sizes = [features.dim, *[hidden] * (config.head_layers - 1), config.dim]
        self.head = MLP(sizes, batch_norm=False, last="affine")
        self.key_head = momentum_buffers(self.head)
        self.queue = Ring(config.queue, config.dim)
        self.bank = Table(count, config.dim)
        self.clusterings = nn.ModuleList(  # type: ignore[assignment]
            Clustering(clusters, count, config.dim, config.temperature) for clusters in config.clusters
        )

    @classmethod
    def build(cls, features: FeatureSpec, config: PCLConfig, data: DataSpec) -> PCL:
        return cls(features, config, count=data.images_for("pcl"))

    def forward(self, online: list[Features], target: list[Features], batch: BatchInfo) -> Result:
        c, indices = self.config, batch.indices
        assert indices is not None
        if len(indices) > c.queue:
            raise ValueError(
                f"objectives.pcl.queue must be at least {len(indices)}, the samples of one batch, got {c.queue}"
            )
        query = F.normalize(widened(self.head(online[0].vector)))
        key = self._key(target[0].vector)
        scores = bank_scores(query, key, self.queue.embeddings, self.queue.valid)
        logits = [clustering.logits(query) for clustering in self.clusterings]
        clusters = [clustering.assignment[indices] for clustering in self.clusterings]
        pairs = list(zip(logits, clusters, strict=True))
        # Equation 11; the second term is 0 before the first clustering.
        prototypes = torch.stack([cluster_cross_entropy(*pair, temperature=1) for pair in pairs]).mean()
        metrics = {
            "accuracy": pair_accuracy(scores),
            "prototype_accuracy": torch.stack([cluster_accuracy(*pair) for pair in pairs]).mean(),
            "embedding_std": embedding_std(query.detach()),
            "alignment": alignment(query.detach(), key),
        }
        return Result(nt_xent(scores, c.temperature) + prototypes, metrics, key)

    def projection_head(self) -> MLP:
        return self.head

    @torch.no_grad()
    def _key(self, vectors: Tensor) -> Tensor:
        return F.normalize(widened(self.key_head(vectors)))

    def after_step(self, carry: Tensor, momentum: Tensor) -> None:
        move_towards(self.key_head.buffers(), self.head.parameters(), 1 - momentum)
        self.queue.push(carry)

    def momentum(self, progress: Tensor) -> Tensor:
        return torch.full_like(progress, self.config.momentum)

    def wants_all(self, epoch: int) -> Literal["online", "target"] | None:
        return "target" if epoch >= self.config.warmup_epochs else None

    def remember(self, features: Features, batch: BatchInfo) -> None:
        assert batch.indices is not None
        self.bank.update(batch.indices, self._key(features.vector), momentum=0)

    @torch.no_grad()
    def between_epochs(self, epoch: int, generator: torch.Generator) -> dict[str, Tensor]:
        if epoch < self.config.warmup_epochs:
            return {}
        used, stability = [], []
        for clustering in self.clusterings:
            before, found = clustering.assignment, self._cluster(len(clustering.centroids), generator)
            used.append((found.assignment.bincount(minlength=len(found.centroids)) > 0).float().mean())
            if (before >= 0).all():
                stability.append(normalized_mutual_information(before, found.assignment))
            clustering.replace(found)
        metrics = {"used": used, "stability": stability}
        return {name: torch.stack(values).mean() for name, values in metrics.items() if values}

    def _cluster(self, clusters: int, generator: torch.Generator) -> Clusters:
        c, embeddings = self.config, self.bank.embeddings
        try:
            return kmeans(
                embeddings, clusters, generator, spherical=False, iterations=c.iterations, restarts=c.restarts
            )
        except ValueError as error:
            raise ValueError(f"the embeddings do not form objectives.pcl.clusters {clusters}: {error}") from None


METHOD = Method(
    "pcl",
    PCL,
    PCLConfig,
    paper="Li et al. 2020, arXiv 2005.04966",
    summary="Contrast with the keys of a slow copy, and with the centroids of clusters of all images.",
    instead="moco",
)
