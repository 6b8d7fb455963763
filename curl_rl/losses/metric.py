"""Metric learning: losses of pairs and triplets of a batch, of the same class or of different ones."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from curl_rl.losses.contrastive import PairScores, info_nce
from curl_rl.losses.half_precision import widened


def semi_hard_triplet(scores: PairScores, margin: float) -> Tensor:
    """Triplet loss max(n − p + margin, 0) on the semi-hard negative (SimCLR, arXiv 2002.05709, table 2), a scalar.

    A semi-hard negative is less similar than the positive, but by less than the margin (Schroff et al. 2015,
    arXiv 1503.03832, equation 4); the most similar one counts. A query without one contributes 0 to the mean.
    """
    # Negatives that are less similar by more than the margin cost nothing anyway.
    too_hard = scores.negatives >= scores.positive[:, None]
    hardest = scores.negatives.masked_fill(too_hard, -torch.inf).amax(1)
    return (hardest - scores.positive + margin).relu().mean()


def supervised_nt_xent(similarity: Tensor, classes: Tensor, temperature: float) -> Tensor:
    """NT-Xent whose positives are all other embeddings of the class (SupCon, arXiv 2004.11362, equation 2: L_out).

    With s the similarities of an anchor over the temperature, it is the mean over its positives p of
    −log(exp(s_p) / Σ exp(s)), where the sum runs over all other embeddings, positives included. Anchors without a
    positive are left out. The released code's factor, temperature / 0.07, is not included.

    Args:
        similarity: ``(N, N)`` inner products of N ≥ 2 embeddings, in the paper of length 1.
        classes: ``(N,)`` integers.
        temperature: above 0.

    Returns:
        The mean over the anchors, a scalar; 0 if no class occurs twice.

    Raises:
        ValueError: fewer than 2 embeddings.
    """
    if len(similarity) < 2:
        raise ValueError(f"similarity must be of at least 2 embeddings, got {len(similarity)}")
    scores = widened(similarity) / temperature
    same, other = _pairs(classes)
    log_probability = scores - scores.masked_fill(~(same | other), -torch.inf).logsumexp(1, keepdim=True)
    count = same.sum(1)
    losses = -log_probability.masked_fill(~same, 0).sum(1) / count.clamp_min(1)
    return _mean(losses, count > 0)


def squared_distances(embeddings: Tensor) -> Tensor:
    """``(N, N)`` squared Euclidean distances of ``(N, D)`` embeddings, differentiable also where they are 0."""
    embeddings = widened(embeddings)
    squares = embeddings.square().sum(1)
    return (squares[:, None] + squares - 2 * embeddings @ embeddings.T).clamp_min(0)


class MarginLoss(NamedTuple):
    """A loss with a margin, and how much of the batch is still within it."""

    loss: Tensor
    """A scalar."""
    active: Tensor
    """Share of the pairs of different classes, or of the triplets, that the loss still moves; a scalar in [0, 1]."""


def pair_margin(distance: Tensor, classes: Tensor, margin: float) -> MarginLoss:
    """Max-margin contrastive loss: d for pairs of one class, max(margin − d, 0) for pairs of different classes.

    The mean over each kind of pair, added, so that the many pairs of different classes do not outweigh the others. A
    kind without a pair counts as 0. It is Hadsell et al. 2006, "Dimensionality reduction by learning an invariant
    mapping", with the hinge on squared distances; there it is max(margin − √d, 0)².

    Args:
        distance: ``(N, N)`` squared distances.
        classes: ``(N,)`` integers.
        margin: above 0; a squared distance.
    """
    same, other = _pairs(classes)
    distance = widened(distance)
    shortfall = (margin - distance).relu()
    return MarginLoss(_mean(distance, same) + _mean(shortfall, other), _mean((shortfall > 0).float(), other))


Mining = Literal["all", "semi_hard", "hard"]
"""The triplets of a batch that count; see :func:`triplet`."""


def triplet(distance: Tensor, classes: Tensor, margin: float, mining: Mining) -> MarginLoss:
    """Triplet loss max(d(a, p) − d(a, n) + margin, 0) (FaceNet, Schroff et al. 2015, arXiv 1503.03832, equation 3).

    a and p are of one class, n is of another. The mean over

    - ``all``: every triplet of the batch. The cost is O(N² log N), although there are up to N³ triplets.
    - ``semi_hard``: every pair (a, p) with the nearest n that is farther from a than p is (equation 4). A pair without
      one within the margin counts as 0.
    - ``hard``: every a with its farthest p and its nearest n (Hermans et al. 2017, arXiv 1703.07737, equation 5).

    Args:
        distance: ``(N, N)`` squared distances.
        classes: ``(N,)`` integers.
        margin: above 0; a difference of squared distances.
        mining: see above.

    Returns:
        The loss, 0 if the batch has no triplet, and the share of the triplets above with a loss above 0.
    """
    same, other = _pairs(classes)
    distance = widened(distance)
    limit = distance + margin
    if mining == "hard":
        farthest = limit.masked_fill(~same, -torch.inf).amax(1)
        losses = (farthest - distance.masked_fill(~other, torch.inf).amin(1)).relu()
        anchors = same.any(1) & other.any(1)
        return MarginLoss(_mean(losses, anchors), _mean((losses > 0).float(), anchors))
    negatives = distance.masked_fill(~other, torch.inf).sort(1).values
    if mining == "semi_hard":
        nearest = torch.searchsorted(negatives.detach(), distance.detach(), right=True)
        losses = (limit - F.pad(negatives, (0, 1), value=torch.inf).gather(1, nearest)).relu()
        return MarginLoss(_mean(losses, same), _mean((losses > 0).float(), same))
    # The loss of (a, p) is a sum over the first so many of a's sorted negatives, those nearer than its limit.
    nearer = torch.searchsorted(negatives.detach(), limit.detach())
    losses = nearer * limit - F.pad(negatives.cumsum(1), (1, 0)).gather(1, nearer)
    triplets = (same.sum(1) * other.sum(1)).sum().clamp_min(1)
    return MarginLoss(losses.masked_fill(~same, 0).sum() / triplets, nearer.masked_fill(~same, 0).sum() / triplets)


def n_pair(similarity: Tensor, classes: Tensor | None) -> Tensor:
    """Multi-class N-pair loss: log(1 + Σ exp(s(a, n) − s(a, p))) (Sohn 2016, equation 6), a scalar.

    Sohn 2016, "Improved deep metric learning with multi-class N-pair loss objective". The sum runs over the keys n of
    other classes than a's; the mean over the pairs of an anchor a and a key p of one class. If all classes differ, it
    is :func:`~curl_rl.losses.info_nce`, which is several times faster.

    Args:
        similarity: ``(B, B)`` inner products of anchors, in rows, and keys.
        classes: ``(B,)`` integers; the classes of both row i and column i. None if they all differ.
    """
    similarity = widened(similarity)
    if classes is None:
        return info_nce(similarity)
    same = classes == classes[:, None]
    negatives = similarity.masked_fill(same, -torch.inf).logsumexp(1, keepdim=True)
    return _mean(F.softplus(negatives - similarity), same)


def _pairs(classes: Tensor) -> tuple[Tensor, Tensor]:
    """``(N, N)`` booleans: pairs of one class, without those of an embedding and itself; pairs of different classes."""
    same = classes == classes[:, None]
    return same & ~torch.eye(len(classes), dtype=torch.bool, device=classes.device), ~same


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean of the chosen values, a scalar; 0 if none is chosen."""
    return values.masked_fill(~chosen, 0).sum() / chosen.sum().clamp_min(1)
