"""Contrastive losses: positives against negatives from a batch or a bank (InfoNCE and its variants)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from curl_rl.losses.half_precision import widened
from curl_rl.losses.log_sum_exp import log_sum_exp


def info_nce(logits: Tensor) -> Tensor:
    """InfoNCE with the positives on the diagonal: the mean cross-entropy of row i with class i.

    Args:
        logits: ``(B, N)`` similarities of B queries to N ≥ B keys; key i is query i's positive.

    Returns:
        The mean over the batch, a scalar (van den Oord et al. 2018, arXiv 1807.03748, equation 4).

    Raises:
        ValueError: fewer keys than queries, or a single key: its loss would be 0, whatever the embeddings.
    """
    queries, keys = logits.shape
    if keys < 2:
        raise ValueError(f"negatives from the batch need at least 2 samples in a batch (batch_size), got {keys}")
    if keys < queries:
        raise ValueError(f"keys must include every query's positive, got {queries} queries and {keys} keys")
    return F.cross_entropy(logits, torch.arange(queries, device=logits.device))


def shared_info_nce(logits: Tensor, same: Tensor) -> Tensor:
    """InfoNCE with several positives: the mean cross-entropy of row i with an even share for each column in ``same``.

    Args:
        logits: ``(B, N)`` similarities of B queries to N keys.
        same: ``(B, N)`` booleans: the keys that belong to each query, at least one in each row. With the diagonal
            alone it is :func:`info_nce`.

    Returns:
        The mean over the queries, a scalar. Its smallest value is that of the targets' entropy, log of their number.
    """
    logits = widened(logits)
    own = same.to(logits.dtype)
    return F.cross_entropy(logits, own / own.sum(1, keepdim=True))


class PairScores(NamedTuple):
    """Similarity of each query to its positive and to its negatives, before the division by a temperature."""

    positive: Tensor
    """``(B,)``."""
    negatives: Tensor
    """``(B, N)``, −∞ where the column is not a negative of the query."""


def two_view_scores(first: Tensor, second: Tensor) -> PairScores:
    """Scores of all 2B views of a batch: the positive is the other view of the same image, the rest are negatives.

    Args:
        first: ``(B, D)`` embeddings of one view of each image, B ≥ 2.
        second: ``(B, D)`` embeddings of the other view.

    Returns:
        ``(2B,)`` and ``(2B, 2B)`` inner products, with the rows of the first views first. Among the negatives, the
        products of a view with itself and with its positive are masked.

    Raises:
        ValueError: fewer than 2 images, so there are no negatives.
    """
    if len(first) < 2:
        raise ValueError(f"negatives from the batch need at least 2 samples in a batch (batch_size), got {len(first)}")
    views = widened(torch.cat([first, second]))
    similarity = views @ views.T
    place = torch.arange(len(views), device=views.device)
    same_image = place % len(first) == (place % len(first))[:, None]
    return PairScores(similarity.diagonal(len(first)).repeat(2), similarity.masked_fill(same_image, -torch.inf))


def bank_scores(query: Tensor, key: Tensor, bank: Tensor, valid: Tensor) -> PairScores:
    """Scores of queries against their positives and a bank of past keys (MoCo, arXiv 1911.05722, algorithm 1).

    Args:
        query: ``(B, D)``.
        key: ``(B, D)``; key i is query i's positive.
        bank: ``(K, D)``.
        valid: ``(K,)`` booleans, True for rows of the bank that hold a key; or ``(B, K)``, True for the negatives of
            each query.

    Returns:
        ``(B,)`` and ``(B, K)`` inner products.
    """
    query = widened(query)
    negatives = query @ bank.to(query.dtype).T
    # In place: a bank is large, and its scores are read from memory again and again.
    return PairScores((query * key).sum(1), negatives.masked_fill_(~valid, -torch.inf))


def nt_xent(scores: PairScores, temperature: float, *, tau_plus: float = 0.0, beta: float = 0.0) -> Tensor:
    """Cross-entropy of picking the positive among the negatives at a temperature: InfoNCE, of which NT-Xent is a case.

    With p and nⱼ the scores divided by the temperature, it is the mean of −log(eᵖ / (eᵖ + S)). In the plain loss S is
    Σ exp(nⱼ) (SimCLR, arXiv 2002.05709, equation 1). Two corrections, which can be combined, replace that sum:

    - hard negatives (Robinson et al. 2020, arXiv 2010.04592, equation 4): each of the N terms is weighted by
      exp(beta · nⱼ) over the mean of these weights. The gradient goes through the weights, as in the released code.
    - debiased (Chuang et al. 2020, arXiv 2007.00224, equations 7 and 8): a negative actually has the query's own class
      with probability tau_plus, so max((S − N·tau_plus·eᵖ) / (1 − tau_plus), N·exp(−1/temperature)) replaces S.
      The bound is the minimum over unit vectors, so this correction requires normalized embeddings.

    Args:
        scores: of B queries. In the plain loss, queries without negatives count as solved; the corrections do not
            support them.
        temperature: above 0.
        tau_plus: class prior in [0, 1); 0 gives exactly the plain loss.
        beta: concentration, at least 0; 0 gives exactly the plain loss.

    Returns:
        The mean over the queries, a scalar.
    """
    positive, negatives = scores.positive / temperature, scores.negatives
    if not beta and not tau_plus:
        return -F.logsigmoid(positive - log_sum_exp(negatives, temperature)).mean()
    count = (negatives != -torch.inf).sum(1, dtype=negatives.dtype)
    log_sum = log_sum_exp(negatives, temperature / (1 + beta))
    if beta:
        log_sum = log_sum - log_sum_exp(negatives, temperature / beta) + count.log()
    if tau_plus:
        same_class = positive + (tau_plus * count).log()
        shift = torch.maximum(log_sum, same_class).detach()  # no exponential overflows, and not both underflow
        rest = (log_sum - shift).exp() - (same_class - shift).exp()
        log_rest = rest.clamp_min(torch.finfo(rest.dtype).tiny).log() + shift - math.log(1 - tau_plus)
        log_sum = log_rest.maximum(count.log() - 1 / temperature)
    return -F.logsigmoid(positive - log_sum).mean()


def nt_logistic(scores: PairScores, temperature: float) -> Tensor:
    """NT-Logistic (SimCLR, arXiv 2002.05709, table 2): −log σ(p) − log σ(−n), with p and n = scores / temperature.

    The second term is averaged over the negatives, so positives and negatives weigh the same at any batch size.
    """
    attraction = -F.logsigmoid(scores.positive / temperature)
    repulsion = -F.logsigmoid(-scores.negatives / temperature).sum(1) / (scores.negatives != -torch.inf).sum(1)
    return (attraction + repulsion).mean()


def nce(scores: PairScores, temperature: float, log_normalizer: Tensor) -> Tensor:
    """Noise-contrastive estimation: telling positives from noise (InstDisc, arXiv 1805.01978, equations 4 to 7).

    With m negatives drawn evenly from N rows, P = exp(score / temperature) / Z is the probability of a row, and
    h = P / (P + m/N) that it is no noise. The loss is the mean over the queries of −log h(positive) − Σ log(1 − h).

    Args:
        scores: of B queries; m is counted for each query. A query without negatives counts as solved.
        temperature: above 0.
        log_normalizer: log(Z/N), a scalar: the logarithm of the mean of exp(score / temperature) over all rows.

    Returns:
        The mean over the queries, a scalar.
    """
    count = (scores.negatives != -torch.inf).sum(1, dtype=scores.negatives.dtype)
    # h is the sigmoid of this difference, which is finite where exp(score / temperature) overflows.
    shift = log_normalizer + count.log()
    attraction = -F.logsigmoid(scores.positive / temperature - shift)
    repulsion = -F.logsigmoid(log_normalizer + count.clamp(min=1).log()[:, None] - scores.negatives / temperature)
    return (attraction + repulsion.sum(1)).mean()


@torch.no_grad()
def log_mean_exp(scores: PairScores, temperature: float) -> Tensor:
    """Logarithm of the mean of exp(score / temperature) over positives and negatives, a detached scalar.

    An estimate of :func:`nce`'s ``log_normalizer`` from one batch.
    """
    logits = torch.cat([scores.positive[:, None], scores.negatives], 1) / temperature
    return logits.flatten().logsumexp(0) - (logits != -torch.inf).sum(dtype=logits.dtype).log()


def bilinear_similarity(query: Tensor, weight: Tensor, key: Tensor) -> Tensor:
    """qᵀWk for every query and every key (CURL, arXiv 2004.04136, equation 4).

    Args:
        query: ``(B, D)``.
        weight: ``(D, E)``.
        key: ``(N, E)``.

    Returns:
        ``(B, N)`` similarities.
    """
    return query @ weight @ key.T
