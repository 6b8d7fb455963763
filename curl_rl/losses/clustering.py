"""Losses on clusters: balanced soft codes (SwAV), given clusters (DeepCluster), prototypes with a margin (ORE)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import reduce
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from curl_rl.losses.half_precision import widened

View = TypeVar("View", bound=Hashable)


@torch.no_grad()
def sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Soft assignments of a batch to prototypes that use all prototypes about equally (Sinkhorn-Knopp).

    The iteration of the released SwAV (arXiv 2006.09882, equations 3 to 5): exp(scores/ε) is scaled to columns of equal
    mass, then to rows of equal mass. It ends with the rows, so these sum to 1, whereas the columns are balanced only in
    the limit of many iterations. It is finite for all finite scores, where exp(scores/ε) overflows as well.

    Args:
        scores: ``(B, K)`` similarities of B embeddings with K prototypes. Half precision is widened to float32.
        epsilon: weight of the assignment's entropy; near 0 the assignment becomes hard.
        iterations: number of times that columns and rows are scaled.

    Returns:
        ``(B, K)`` probabilities over the prototypes, without gradient.

    Raises:
        ValueError: ``epsilon`` is 0 or less, or ``iterations`` is below 1.
    """
    if not epsilon > 0:
        raise ValueError(f"epsilon must be above 0, got {epsilon:g}")
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    # The first iteration works on logarithms. After it no column can vanish: the largest entry of a scaled column is at
    # least 1/B and a row of such columns sums to at most K, so a column of the scaled rows sums to at least 1/(B·K).
    codes = (widened(scores) / epsilon).log_softmax(0).softmax(1)
    for _ in range(iterations - 1):
        codes /= codes.sum(0)
        codes /= codes.sum(1, keepdim=True)
    return codes


def swapped_prediction(scores: Mapping[View, Tensor], codes: Mapping[View, Tensor], temperature: float) -> Tensor:
    """Mean cross-entropy of predicting each view's code from every other view (SwAV, 2006.09882, equations 2 and 6).

    Args:
        scores: by view, ``(B, K)`` similarities of its embeddings with K prototypes.
        codes: by view, ``(B, K)`` probabilities over the prototypes. Views may have scores, a code, or both.
        temperature: of the predictions, above 0.

    Returns:
        The mean over the batch and all pairs of views, a scalar; the log of K if nothing is learned.
    """
    pairs = _swapped(scores, codes)
    # The cross-entropy is linear in the code, so a view predicts the sum of its codes at once.
    predicted = {by: reduce(torch.add, [codes[to] for other, to in pairs if other == by]) for by, _ in pairs}
    losses = [F.cross_entropy(widened(scores[by]) / temperature, together) for by, together in predicted.items()]
    return torch.stack(losses).sum() / len(pairs)


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


def prototype_margin(distance: Tensor, labels: Tensor, known: Tensor, margin: float) -> Tensor:
    """Distance to the prototype of one's class, plus max(margin − d, 0) for that of every other class (ORE).

    Joseph et al. 2021, "Towards open world object detection", arXiv 2103.02603, equations 1 and 2. Classes without a
    prototype take no part: no made-up vector attracts or repels.

    Args:
        distance: ``(B, C)`` Euclidean distances to the prototypes of all classes.
        labels: ``(B,)`` classes; a negative one stands for none, and such a sample counts as 0.
        known: ``(C,)`` booleans, True for classes that have a prototype.
        margin: Δ, above 0; in units of the distance.

    Returns:
        The mean over all samples, a scalar.
    """
    distance = widened(distance)
    labeled = (labels >= 0)[:, None] & known
    own = labels[:, None] == torch.arange(len(known), device=labels.device)
    terms = torch.where(own, distance, (margin - distance).relu())
    return torch.where(labeled, terms, 0).sum(1).mean()
