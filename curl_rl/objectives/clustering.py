"""Clustering of embeddings: k-means, the concentration of its clusters, and the agreement of two clusterings."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from curl_rl.losses.half_precision import widened


class Clusters(NamedTuple):
    """K clusters of N rows; each row belongs to the nearest centroid."""

    centroids: Tensor
    """``(K, D)``."""
    assignment: Tensor
    """``(N,)`` integers, the cluster of each row."""
    distance: Tensor
    """``(N,)``, the Euclidean distance of each row from its centroid, not squared."""


@torch.no_grad()
def kmeans(
    x: Tensor,
    k: int,
    generator: torch.Generator,
    *,
    spherical: bool,
    iterations: int,
    restarts: int = 1,
    chunk: int = 8192,
) -> Clusters:
    """Lloyd's k-means, starting from k distinct rows drawn at random, until no row changes its cluster.

    A cluster that loses its last row keeps its centroid if ``spherical``, as in the released DeepCluster v2. Otherwise
    it takes over the row that is farthest from its own centroid, as in scikit-learn.

    Args:
        x: ``(N, D)`` rows on any device. Half precision is widened to float32.
        k: number of clusters, at most the number of distinct rows.
        generator: random generator of the starting rows, on any device.
        spherical: compare by cosine: rows and centroids have length 1. Rows must be nonzero and are normalized here.
        iterations: maximum number of times that the centroids move.
        restarts: number of starts; the result with the least sum of squared distances is returned.
        chunk: number of rows compared with all centroids at a time. It limits memory and does not change the result.

    Raises:
        ValueError: ``k``, ``restarts`` or ``chunk`` is below 1, ``iterations`` is below 0, or fewer than ``k`` rows
            are distinct.
    """
    for name, value in (("k", k), ("restarts", restarts), ("chunk", chunk)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if iterations < 0:
        raise ValueError(f"iterations must be at least 0, got {iterations}")
    x = F.normalize(widened(x)) if spherical else widened(x)
    runs = (_lloyd(x, _distinct_rows(x, k, generator), spherical, iterations, chunk) for _ in range(restarts))
    return min(runs, key=lambda clusters: clusters.distance.square().sum().item())


def _lloyd(x: Tensor, centroids: Tensor, spherical: bool, iterations: int, chunk: int) -> Clusters:
    """k-means starting from the given ``(K, D)`` centroids."""
    assignment = _nearest(x, centroids, chunk)
    for _ in range(iterations):
        centroids = _directions(x, assignment, centroids) if spherical else _means(x, assignment, centroids, chunk)
        before, assignment = assignment, _nearest(x, centroids, chunk)
        if torch.equal(assignment, before):
            break
    return Clusters(centroids, assignment, _distance(x, assignment, centroids, chunk))


def _distinct_rows(x: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """The first k rows in a random order that differ from all earlier ones."""
    order = torch.randperm(len(x), generator=generator, device=generator.device).to(x.device)
    drawn = k
    while True:  # usually the first k are distinct; comparing all rows is slow
        rows = x[order[:drawn]]
        distinct, which = rows.unique(dim=0, return_inverse=True)
        if len(distinct) >= k:
            place = torch.arange(len(rows), device=x.device)
            first = place.new_full((len(distinct),), len(rows)).scatter_reduce_(0, which, place, "amin")
            return rows[first.sort().values[:k]]
        if drawn >= len(x):
            raise ValueError(f"k must be at most {len(distinct)}, the number of distinct rows among {len(x)}, got {k}")
        drawn *= 2


def _nearest(x: Tensor, centroids: Tensor, chunk: int) -> Tensor:
    # ‖x − c‖² = ‖x‖² − 2 (x·c − ‖c‖²/2), and ‖x‖² is the same for all centroids.
    shift = -centroids.square().sum(1) / 2
    # On a CPU max takes half the time of argmax, which is not vectorized; both take the first of equal maxima.
    return torch.cat([torch.addmm(shift, rows, centroids.T).max(1).indices for rows in x.split(chunk)])


def _distance(x: Tensor, assignment: Tensor, centroids: Tensor, chunk: int) -> Tensor:
    parts = zip(x.split(chunk), assignment.split(chunk), strict=True)
    return torch.cat([torch.linalg.vector_norm(rows - centroids[own], dim=1) for rows, own in parts])


def _directions(x: Tensor, assignment: Tensor, centroids: Tensor) -> Tensor:
    """The directions of the clusters' means; a cluster with a zero mean, such as an empty one, keeps its centroid."""
    sums = torch.zeros_like(centroids).index_add_(0, assignment, x)
    length = torch.linalg.vector_norm(sums, dim=1, keepdim=True)
    return torch.where(length > 0, sums / length, centroids)


def _means(x: Tensor, assignment: Tensor, centroids: Tensor, chunk: int) -> Tensor:
    """The clusters' means, after each empty cluster has taken over one of the rows farthest from their centroids."""
    empty = (assignment.bincount(minlength=len(centroids)) == 0).nonzero()[:, 0]
    if len(empty):
        farthest = _distance(x, assignment, centroids, chunk).topk(len(empty)).indices
        assignment = assignment.index_copy(0, farthest, empty)
    counts = assignment.bincount(minlength=len(centroids))[:, None]
    sums = torch.zeros_like(centroids).index_add_(0, assignment, x)
    # The row taken over may have been the only one of its cluster.
    return torch.where(counts > 0, sums / counts, centroids)


@torch.no_grad()
def concentration(clusters: Clusters, temperature: float) -> Tensor:
    """φ of each cluster, ``(K,)``: a temperature per cluster, small if its rows are close (PCL, arXiv 2005.04966).

    Equation 12: Σ distance / (Z ln(Z + 10)) over the Z rows of a cluster. As in the released code, a cluster of one row
    or none gets the largest φ; then all are clipped to their 10th and 90th percentiles and scaled to have the mean
    ``temperature``. A cluster of equal rows also gets the largest, since its φ of 0 would lead to a division by zero.
    If no cluster has any spread, as with k = N, every φ is ``temperature``.
    """
    rows = clusters.assignment.bincount(minlength=len(clusters.centroids)).to(clusters.distance.dtype)
    total = clusters.distance.new_zeros(len(rows)).index_add_(0, clusters.assignment, clusters.distance)
    phi = total / (rows * (rows + 10).log())  # NaN for empty clusters
    spread = (rows > 1) & (total > 0)
    phi = torch.where(spread, phi, torch.where(spread, phi, 0).amax())
    phi = phi.clamp(phi.quantile(0.1), phi.quantile(0.9))
    return torch.where(spread.any(), temperature * phi / phi.mean(), temperature)


@torch.no_grad()
def normalized_mutual_information(first: Tensor, second: Tensor) -> Tensor:
    """Agreement of two clusterings of the same N rows, a scalar: 1 if they are the same but for the clusters' order.

    Their mutual information over the mean of their entropies; 0 if they are independent, and 1 for two clusterings of
    one cluster each. It shows whether clusterings of successive epochs settle (DeepCluster, arXiv 1807.05520, fig. 2).

    Args:
        first: ``(N,)`` integers of at least 0, the cluster of each row.
        second: ``(N,)``, likewise.
    """
    columns = int(second.max()) + 1
    joint = (first * columns + second).bincount(minlength=(int(first.max()) + 1) * columns).view(-1, columns)
    share = joint.to(torch.float32) / len(first)

    def entropy(p: Tensor) -> Tensor:
        return -torch.special.xlogy(p, p).sum()

    one, other = entropy(share.sum(1)), entropy(share.sum(0))
    mutual = one + other - entropy(share)
    return torch.where(one + other > 0, 2 * mutual / (one + other), 1.0)
