"""Diagnostics of embeddings that are not trained on: accuracy, alignment, uniformity, effective rank, collapse."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from curl_rl.losses.contrastive import PairScores
from curl_rl.losses.half_precision import widened


def contrastive_accuracy(logits: Tensor) -> Tensor:
    """Fraction of queries whose positive, on the diagonal of ``(B, N)`` logits, scores highest; a scalar in [0, 1]."""
    # Tensor.argmax takes twice as long on a CPU; of equal ones, both find the first.
    return (logits.max(1).indices == torch.arange(len(logits), device=logits.device)).float().mean()


def pair_accuracy(scores: PairScores) -> Tensor:
    """Fraction of queries that score higher with their positive than with any negative; a scalar in [0, 1]."""
    return (scores.positive > scores.negatives.amax(1)).float().mean()


def class_accuracy(similarity: Tensor, classes: Tensor) -> Tensor:
    """Fraction of embeddings whose most similar other one is of their own class; a scalar in [0, 1].

    Args:
        similarity: ``(N, N)`` of the embeddings with each other.
        classes: ``(N,)`` integers. An embedding that is alone in its class, or as similar to one of another class,
            counts as wrong.
    """
    same = classes == classes[:, None]
    itself = torch.eye(len(classes), dtype=torch.bool, device=classes.device)
    nearest_same = similarity.masked_fill(~same | itself, -torch.inf).amax(1)
    nearest_other = similarity.masked_fill(same, -torch.inf).amax(1)
    return (nearest_same > nearest_other).float().mean()


def softmax_confidence(logits: Tensor) -> Tensor:
    """Mean over the rows of ``(B, N)`` logits of the largest softmax probability: 1/N undecided, 1 saturated.

    Confidence far above the accuracy indicates a softmax that is saturated on wrong answers.
    """
    return logits.softmax(1).max(1).values.mean()


def effective_rank(embeddings: Tensor) -> Tensor:
    """Number of directions that a batch of embeddings effectively uses: the exponential of its spectrum's entropy.

    With s the singular values of the centered ``(B, D)`` embeddings and p = s / Σs, it is exp(−Σ p log p)
    (Roy & Vetterli 2007, "The effective rank"): 1 for a line, min(B − 1, D) for an isotropic cloud, 0 for a point, and
    NaN if any embedding is not finite.
    """
    centered = (embeddings - embeddings.mean(0)).float()
    finite = centered.isfinite().all()
    values = torch.linalg.svdvals(torch.where(finite, centered, 0))
    share = values / values.sum().clamp_min(torch.finfo(values.dtype).tiny)
    rank = torch.exp(-torch.special.xlogy(share, share).sum())
    return torch.where(finite, torch.where(values.sum() > 0, rank, 0), torch.nan)


def alignment(first: Tensor, second: Tensor, *, unit: bool = False) -> Tensor:
    """Mean squared distance of the normalized ``(B, D)`` embeddings of two views: 0 aligned, 2 unrelated, 4 opposite.

    Wang & Isola 2020, arXiv 2005.10242, section 4.1, with α = 2. ``unit``: the embeddings are normalized already.
    """
    if not unit:
        first, second = F.normalize(widened(first)), F.normalize(widened(second))
    return (first - second).square().sum(1).mean()


def uniformity(embeddings: Tensor, t: float = 2.0) -> Tensor:
    """Logarithm of the mean of exp(−t d²) over all pairs of B ≥ 2 normalized ``(B, D)`` embeddings, a scalar.

    It is 0 if all embeddings coincide, and lower the more evenly they cover the sphere (Wang & Isola 2020,
    arXiv 2005.10242, section 4.1). The cost is O(B² D).
    """
    return torch.pdist(F.normalize(widened(embeddings))).square().mul(-t).exp().mean().log()


def embedding_std(embeddings: Tensor, *, unit: bool = False) -> Tensor:
    """Spread of ``(B, D)`` embeddings: 1 if they cover all directions, 0 if they have collapsed into one point.

    √D times the mean over the dimensions of the standard deviation of the normalized embeddings, as in SimSiam's
    figure 2 (arXiv 2011.10566); at most 1. ``unit``: the embeddings are normalized already.
    """
    normalized = embeddings if unit else F.normalize(widened(embeddings))
    # Tensor.std takes ten times as long on a CPU.
    spread = (normalized - normalized.mean(0)).square().mean(0).sqrt()
    return spread.mean() * embeddings.shape[1] ** 0.5
