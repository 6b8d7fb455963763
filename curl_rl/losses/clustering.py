"""Losses on cluster assignments: balanced soft codes and their prediction (SwAV), and given clusters (DeepCluster)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from curl_rl.losses.half_precision import widened

View = TypeVar("View", bound=Hashable)


def sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Soft assignments of a batch to prototypes that use all prototypes about equally (Sinkhorn-Knopp).

    The iteration of the released SwAV (arXiv 2006.09882, equations 3 to 5): exp(scores/ε) is scaled to columns of equal
    mass, then to rows of equal mass. Here it works on logarithms, which stay finite where exp(scores/ε) overflows.
    It ends with the rows, so these sum to 1, whereas the columns are balanced only in the limit of many iterations.

    Args:
        scores: ``(B, K)`` similarities of B embeddings with K prototypes. Half precision is widened to float32.
        epsilon: weight of the assignment's entropy; near 0 the assignment becomes hard.
        iterations: number of times that columns and rows are scaled.

    Returns:
        ``(B, K)`` probabilities over the prototypes.

    Raises:
        ValueError: ``epsilon`` is 0 or less, or ``iterations`` is below 1.
    """
    if not epsilon > 0:
        raise ValueError(f"epsilon must be above 0, got {epsilon:g}")
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    codes = widened(scores) / epsilon
    for _ in range(iterations):
        codes = codes.log_softmax(0).log_softmax(1)
    # Changes only the last bits: normalizes the probabilities themselves instead of their logarithms.
    return codes.softmax(1)


def swapped_prediction(scores: Mapping[View, Tensor], codes: Mapping[View, Tensor], temperature: float) -> Tensor:
    """Mean cross-entropy of predicting each view's code from every other view (SwAV, 2006.09882, equations 2 and 6).

    Args:
        scores: by view, ``(B, K)`` similarities of its embeddings with K prototypes.
        codes: by view, ``(B, K)`` probabilities over the prototypes. Views may have scores, a code, or both.
        temperature: of the predictions, above 0.

    Returns:
        The mean over the batch and all pairs of views, a scalar; the log of K if nothing is learned.
    """
    predicted = {view: (widened(own) / temperature).log_softmax(1) for view, own in scores.items()}
    return torch.stack([-(codes[to] * predicted[by]).sum(1).mean() for by, to in _swapped(scores, codes)]).mean()


def swapped_accuracy(scores: Mapping[View, Tensor], codes: Mapping[View, Tensor]) -> Tensor:
    """Fraction of predictions in :func:`swapped_prediction` whose best prototype is the code's; a detached scalar."""
    best, own = ({view: _best(values) for view, values in some.items()} for some in (scores, codes))
    return torch.stack([(best[by] == own[to]).float().mean() for by, to in _swapped(scores, codes)]).mean()


def _swapped(scores: Mapping[View, Tensor], codes: Mapping[View, Tensor]) -> list[tuple[View, View]]:
    """Pairs of views: one that predicts, and another whose code it predicts."""
    return [(by, to) for to in codes for by in scores if by != to]


def used_share(scores: Tensor, temperature: float) -> Tensor:
    """Effective share of the prototypes that a batch's predictions use, a scalar: 1 if all equally, 1/K if only one.

    The exponential of the entropy of the mean prediction, divided by the number of prototypes.

    Args:
        scores: ``(B, K)`` similarities of B embeddings with K prototypes.
        temperature: of the predictions, above 0.
    """
    mean = (widened(scores) / temperature).softmax(1).mean(0)
    return torch.exp(-torch.special.xlogy(mean, mean).sum()) / scores.shape[1]


def cluster_cross_entropy(scores: Tensor, clusters: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy of finding each embedding's cluster (DeepCluster v2, arXiv 2006.09882), a scalar.

    Args:
        scores: ``(..., B, K)`` similarities of B embeddings with K centroids.
        clusters: ``(..., B)`` integers below K, or -1 where there is no cluster: such rows are left out of the mean.
        temperature: above 0.

    Returns:
        The mean over all rows with a cluster, 0 if there are none.
    """
    logits = (widened(scores) / temperature).flatten(0, -2)
    total = F.cross_entropy(logits, clusters.flatten(), ignore_index=-1, reduction="sum")
    return total / (clusters >= 0).sum().clamp(min=1)


def cluster_accuracy(scores: Tensor, clusters: Tensor) -> Tensor:
    """Fraction of the embeddings with a cluster whose best centroid it is; a detached scalar.

    Takes the arguments of :func:`cluster_cross_entropy`.
    """
    return (_best(scores) == clusters).sum() / (clusters >= 0).sum().clamp(min=1)


def _best(scores: Tensor) -> Tensor:
    """``scores.argmax(-1)``, by ``max``, which takes about half the time on a CPU."""
    return scores.detach().max(-1).indices
