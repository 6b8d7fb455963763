"""Contrastive losses: positives against negatives, from a batch or a bank (InfoNCE and its variants)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from curl_rl.losses.half_precision import widened


def info_nce(logits: Tensor) -> Tensor:
    """InfoNCE with the positives on the diagonal: the mean cross-entropy of row i against class i.

    Args:
        logits: ``(B, N)`` similarities of B queries to N ≥ B keys; key i is query i's positive.

    Returns:
        The mean over the batch, a scalar (van den Oord et al. 2018, arXiv 1807.03748, equation 4).

    Raises:
        ValueError: fewer keys than queries.
    """
    queries, keys = logits.shape
    if keys < queries:
        raise ValueError(f"every query needs its positive among the keys, got {queries} queries and {keys} keys")
    return F.cross_entropy(logits, torch.arange(queries, device=logits.device))


class PairScores(NamedTuple):
    """How like its positive, and how like each of its negatives, every query is; not yet divided by a temperature."""

    positive: Tensor
    """``(B,)``."""
    negatives: Tensor
    """``(B, N)``, −∞ in the columns that are no negative of that query."""


def two_view_scores(first: Tensor, second: Tensor) -> PairScores:
    """Scores of all 2B views of a batch: a view's positive is the other view of its image, its negatives all the rest.

    Args:
        first: ``(B, D)`` embeddings of one view of each image, B ≥ 2.
        second: ``(B, D)`` embeddings of the other.

    Returns:
        ``(2B,)`` and ``(2B, 2B)`` inner products, the first views' rows first. A view with itself and with its positive
        are masked.

    Raises:
        ValueError: fewer than 2 images, so that there is no negative.
    """
    if len(first) < 2:
        raise ValueError(f"negatives from the batch need at least 2 samples in a batch (batch_size), got {len(first)}")
    views = widened(torch.cat([first, second]))
    similarity = views @ views.T
    place = torch.arange(len(views), device=views.device)
    same_image = place % len(first) == (place % len(first))[:, None]
    return PairScores(similarity.diagonal(len(first)).repeat(2), similarity.masked_fill(same_image, -torch.inf))


def bank_scores(query: Tensor, key: Tensor, bank: Tensor, valid: Tensor) -> PairScores:
    """Scores of queries whose negatives are a bank of past keys (MoCo, arXiv 1911.05722, algorithm 1).

    Args:
        query: ``(B, D)``.
        key: ``(B, D)``; key i is query i's positive.
        bank: ``(K, D)``.
        valid: ``(K,)`` booleans, which of the bank hold a key.

    Returns:
        ``(B,)`` and ``(B, K)`` inner products.
    """
    query = widened(query)
    negatives = query @ bank.to(query.dtype).T
    return PairScores((query * key).sum(1), negatives.masked_fill(~valid, -torch.inf))


def nt_xent(scores: PairScores, temperature: float, *, tau_plus: float = 0.0, beta: float = 0.0) -> Tensor:
    """Cross-entropy of picking the positive among the negatives at a temperature; InfoNCE, of which NT-Xent is a case.

    With p and nⱼ the scores over the temperature it is the mean of −log(eᵖ / (eᵖ + S)). S is Σ exp(nⱼ) in the plain
    loss (SimCLR, arXiv 2002.05709, equation 1), and what replaces the sum in its two corrections, which can be joined:

    - hard negatives (Robinson et al. 2020, arXiv 2010.04592, equation 4): each of the N terms is weighted by
      exp(beta · nⱼ) over the mean of these weights. The gradient goes through the weights, as in the released code.
    - debiased (Chuang et al. 2020, arXiv 2007.00224, equations 7 and 8): a negative is in truth of the query's own
      class with probability tau_plus, so max((S − N·tau_plus·eᵖ) / (1 − tau_plus), N·exp(−1/temperature)) replaces S.
      The bound is the least that unit vectors can reach, so this one needs normalised embeddings.

    Args:
        scores: of B queries; those without any negative count as solved, and only in the plain loss.
        temperature: above 0.
        tau_plus: class prior in [0, 1); 0 is the plain loss, exactly.
        beta: concentration, at least 0; 0 is the plain loss, exactly.

    Returns:
        The mean over the queries, a scalar.
    """
    positive, negatives = scores.positive / temperature, scores.negatives / temperature
    count = (negatives != -torch.inf).sum(1, dtype=negatives.dtype)
    log_sum = negatives.logsumexp(1)
    if beta:
        log_sum = ((1 + beta) * negatives).logsumexp(1) - (beta * negatives).logsumexp(1) + count.log()
    if tau_plus:
        same_class = positive + (tau_plus * count).log()
        shift = torch.maximum(log_sum, same_class).detach()  # so that no exponential overflows, and not both vanish
        rest = (log_sum - shift).exp() - (same_class - shift).exp()
        log_rest = rest.clamp_min(torch.finfo(rest.dtype).tiny).log() + shift - math.log(1 - tau_plus)
        log_sum = log_rest.maximum(count.log() - 1 / temperature)
    return -F.logsigmoid(positive - log_sum).mean()


def nt_logistic(scores: PairScores, temperature: float) -> Tensor:
    """NT-Logistic (SimCLR, arXiv 2002.05709, table 2): −log σ(p) − log σ(−n), p and n the scores over the temperature.

    The negatives' term is their mean, so that positives and negatives weigh the same at any batch size.
    """
    attraction = -F.logsigmoid(scores.positive / temperature)
    repulsion = -F.logsigmoid(-scores.negatives / temperature).sum(1) / (scores.negatives != -torch.inf).sum(1)
    return (attraction + repulsion).mean()


def bilinear_similarity(query: Tensor, weight: Tensor, key: Tensor) -> Tensor:
    """qᵀWk of every query with every key (CURL, arXiv 2004.04136, equation 4).

    Args:
        query: ``(B, D)``.
        weight: ``(D, E)``.
        key: ``(N, E)``.

    Returns:
        ``(B, N)`` similarities.
    """
    return query @ weight @ key.T
