"""Lower bounds on the mutual information between queries and the places of feature maps (DIM, ST-DIM, AMDIM).

All take scores ``(..., P, B, B)``: entry (p, i, j) is the score of sample i's query with place p of sample j. Leading
dimensions hold several queries of each sample. The positives, i = j, are on the diagonal of each matrix.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from curl_rl.losses.half_precision import widened


def place_scores(queries: Tensor, places: Tensor) -> Tensor:
    """Inner products of each sample's query with every sample's places.

    Args:
        queries: ``(B, D)``, one query for all places, or ``(P, B, D)``, one for each.
        places: ``(P, B, D)``.

    Returns:
        ``(P, B, B)`` scores.
    """
    scores: Tensor = widened(queries) @ widened(places).mT
    return scores


def jensen_shannon(scores: Tensor, present: Tensor | None = None) -> Tensor:
    """The Jensen-Shannon estimator, negated (DIM, arXiv 1808.06670, equation 4).

    Args:
        scores: ``(..., P, B, B)``.
        present: ``(P, B)`` booleans, False for places of a sample that take no part. [default: all do]

    Returns:
        The mean of softplus(−s) over the positives plus that of softplus(s) over the negatives, a scalar; 2 ln 2 if all
        scores are 0.
    """
    positives, negatives = F.softplus(-_positives(scores)), F.softplus(scores)
    if present is None:
        return positives.mean() + _negative_mean(negatives)
    # The share of all places that count, by which the means over all of them are too small.
    share = present.to(scores.dtype).mean()
    counting = present.unsqueeze(-2)
    return (positives * present).mean() / share + _negative_mean(negatives * counting) / share


def donsker_varadhan(scores: Tensor) -> Tensor:
    """The Donsker-Varadhan estimator, negated (MINE, arXiv 1801.04062; DIM, equation 2).

    Returns:
        The logarithm of the mean of exp(s) over the negatives less the mean of s over the positives, a scalar: minus a
        bound on the mutual information, in nats.
    """
    positives = _positives(scores)
    count = scores.numel() - positives.numel()
    return _without_positives(scores).flatten().logsumexp(0) - math.log(count) - positives.mean()


def place_info_nce(scores: Tensor, *, same_place: bool) -> Tensor:
    """InfoNCE of each place of a query's own sample against places of the other samples.

    Args:
        scores: ``(..., P, B, B)``, B ≥ 2.
        same_place: True: the negatives are the same place of the other samples (ST-DIM, arXiv 1906.08226, equations 2
            and 3). False: all their places (DIM, arXiv 1808.06670, equation 5).

    Returns:
        The mean over queries and places, a scalar. One place gives :func:`~curl_rl.losses.info_nce`.

    Raises:
        ValueError: fewer than 2 samples, so there are no negatives.
    """
    negatives = _without_positives(scores)
    log_sum = negatives.logsumexp(-1) if same_place else negatives.logsumexp((-3, -1)).unsqueeze(-2)
    return -F.logsigmoid(_positives(scores) - log_sum).mean()


def soft_clip(scores: Tensor, bound: float) -> Tensor:
    """``bound · tanh(scores / bound)``: nearly unchanged near 0, within ± ``bound`` everywhere (AMDIM)."""
    return bound * torch.tanh(scores / bound)


@torch.no_grad()
def place_accuracy(scores: Tensor, *, same_place: bool, present: Tensor | None = None) -> Tensor:
    """Share of the positives that score higher than all negatives of their query; a scalar in [0, 1].

    Takes the arguments of :func:`place_info_nce`, and ``present`` of :func:`jensen_shannon`.
    """
    if present is not None:
        masked = scores.masked_fill(~present.unsqueeze(-2), -torch.inf)
        return place_accuracy(masked, same_place=same_place) / present.float().mean()
    negatives = _without_positives(scores)
    highest = negatives.amax(-1) if same_place else negatives.amax((-3, -1)).unsqueeze(-2)
    return (_positives(scores) > highest).float().mean()


def _positives(scores: Tensor) -> Tensor:
    """``(..., P, B)``."""
    return scores.diagonal(dim1=-2, dim2=-1)


def _own(scores: Tensor) -> Tensor:
    """``(B, B)``, True where query and place are of the same sample."""
    if (batch := scores.shape[-1]) < 2:
        raise ValueError(f"negatives from the batch need at least 2 samples in a batch (batch_size), got {batch}")
    return torch.eye(scores.shape[-1], dtype=torch.bool, device=scores.device)


def _without_positives(scores: Tensor) -> Tensor:
    # The released code masks with −10, which is no mask for scores that low.
    return scores.masked_fill(_own(scores), -torch.inf)


def _negative_mean(values: Tensor) -> Tensor:
    batch = values.shape[-1]
    return values.masked_fill(_own(values), 0).sum() / (values.numel() * (batch - 1) / batch)
