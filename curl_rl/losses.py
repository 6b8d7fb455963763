"""Self-supervised losses and what tells whether they still teach: pure functions of tensors.

Embeddings of half precision are widened to float32 before anything is summed up or exponentiated.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


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
    views = _widened(torch.cat([first, second]))
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
    query = _widened(query)
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


def semi_hard_triplet(scores: PairScores, margin: float) -> Tensor:
    """Margin triplet loss max(n − p + margin, 0) (SimCLR, arXiv 2002.05709, table 2) on the semi-hard negative.

    The semi-hard negative of a query is the most similar of those that are less similar than its positive, but by less
    than the margin (Schroff et al. 2015, arXiv 1503.03832, equation 4); a query without one counts as 0 in the mean.
    """
    # One that is less similar by more than the margin costs nothing anyway.
    too_hard = scores.negatives >= scores.positive[:, None]
    hardest = scores.negatives.masked_fill(too_hard, -torch.inf).amax(1)
    return (hardest - scores.positive + margin).relu().mean()


def negative_cosine(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean of −cos between ``(B, D)`` predictions and ``(B, D)`` targets, a scalar (SimSiam, 2011.10566, equation 1).

    ``2 + 2 * negative_cosine(q, z)`` is the squared distance of the normalised vectors (BYOL, 2006.07733, equation 2).
    """
    return -F.cosine_similarity(_widened(prediction), _widened(target)).mean()


def cross_prediction(predictions: list[Tensor], targets: list[Tensor]) -> Tensor:
    """Mean :func:`negative_cosine` of every view's prediction and every other view's target, a scalar in [-1, 1].

    BYOL and SimSiam compare two views in both directions; with multi-crop (Caron et al. 2020, arXiv 2006.09882, section
    3.2) more views predict than are predicted.

    Args:
        predictions: ``(B, D)`` of views 0, 1, 2 and so on.
        targets: ``(B, D)`` of the first of these views.
    """
    pairs = [(i, j) for i in range(len(predictions)) for j in range(len(targets)) if i != j]
    return torch.stack([negative_cosine(predictions[i], targets[j]) for i, j in pairs]).mean()


def cross_correlation(first: Tensor, second: Tensor, eps: float = 1e-5) -> Tensor:
    """Correlations over the batch of every feature of one view with every feature of the other, in [−1, 1].

    Args:
        first: ``(B, D)`` embeddings of one view, B ≥ 2.
        second: ``(B, E)`` embeddings of the other.
        eps: added to the variances.

    Returns:
        ``(D, E)`` (Barlow Twins, arXiv 2103.03230, equation 2).

    Raises:
        ValueError: fewer than 2 samples.
    """
    if len(first) < 2:
        raise ValueError(f"correlations need at least 2 samples in a batch (batch_size), got {len(first)}")

    def standardised(embeddings: Tensor) -> Tensor:
        wide = _widened(embeddings)
        variance, mean = torch.var_mean(wide, 0, correction=0)
        return (wide - mean) * torch.rsqrt(variance + eps)

    return standardised(first).T @ standardised(second) / len(first)


def redundancy(correlation: Tensor, off_diagonal_weight: float) -> Tensor:
    """Σᵢ (1 − Cᵢᵢ)² + weight · Σᵢ≠ⱼ Cᵢⱼ² of a ``(D, D)`` correlation (Barlow Twins, arXiv 2103.03230, equation 1)."""
    diagonal = correlation.diagonal()
    off_diagonal = correlation - diagonal.diag()  # exact: the sum of all squares less the diagonal's would not be
    return (1 - diagonal).square().sum() + off_diagonal_weight * off_diagonal.square().sum()


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


def contrastive_accuracy(logits: Tensor) -> Tensor:
    """Share of queries whose positive, on the diagonal of ``(B, N)`` logits, scores highest; a scalar in [0, 1]."""
    return (logits.argmax(1) == torch.arange(len(logits), device=logits.device)).float().mean()


def pair_accuracy(scores: PairScores) -> Tensor:
    """Share of queries that score higher with their positive than with any negative; a scalar in [0, 1]."""
    return (scores.positive > scores.negatives.amax(1)).float().mean()


def softmax_confidence(logits: Tensor) -> Tensor:
    """Mean over the rows of ``(B, N)`` logits of the largest softmax probability: 1/N undecided, 1 saturated.

    Confidence far above the accuracy tells of a softmax that is saturated on wrong answers.
    """
    return logits.softmax(1).max(1).values.mean()


def effective_rank(embeddings: Tensor) -> Tensor:
    """How many directions a batch of embeddings really uses: the exponential of its spectrum's entropy.

    With s the singular values of the centred ``(B, D)`` embeddings and p = s / Σs, it is exp(−Σ p log p)
    (Roy & Vetterli 2007, "The effective rank"): 1 for a line, min(B − 1, D) for an isotropic cloud, 0 for a point, and
    NaN where an embedding is not finite.
    """
    centred = (embeddings - embeddings.mean(0)).float()
    finite = centred.isfinite().all()
    values = torch.linalg.svdvals(torch.where(finite, centred, 0))
    share = values / values.sum().clamp_min(torch.finfo(values.dtype).tiny)
    rank = torch.exp(-torch.special.xlogy(share, share).sum())
    return torch.where(finite, torch.where(values.sum() > 0, rank, 0), torch.nan)


def alignment(first: Tensor, second: Tensor) -> Tensor:
    """Mean squared distance of the normalised ``(B, D)`` embeddings of two views: 0 aligned, 2 unrelated, 4 opposite.

    Wang & Isola 2020, arXiv 2005.10242, section 4.1, with α = 2.
    """
    return (F.normalize(_widened(first)) - F.normalize(_widened(second))).square().sum(1).mean()


def uniformity(embeddings: Tensor, t: float = 2.0) -> Tensor:
    """Logarithm of the mean of exp(−t d²) over all pairs of B ≥ 2 normalised ``(B, D)`` embeddings.

    0 where all embeddings are one, and the lower, the more evenly they cover the sphere; a scalar (Wang & Isola 2020,
    arXiv 2005.10242, section 4.1). Costs B² D.
    """
    return torch.pdist(F.normalize(_widened(embeddings))).square().mul(-t).exp().mean().log()


def embedding_std(embeddings: Tensor) -> Tensor:
    """How far ``(B, D)`` embeddings are from collapse: 1 spread over all directions, 0 in one point.

    √D times the mean over the dimensions of the standard deviation of the normalised embeddings, as in SimSiam's
    figure 2 (arXiv 2011.10566); at most 1.
    """
    normalised = F.normalize(_widened(embeddings))
    return normalised.std(0, correction=0).mean() * embeddings.shape[1] ** 0.5


def _widened(embeddings: Tensor) -> Tensor:
    return embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
