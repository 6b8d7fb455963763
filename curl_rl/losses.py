"""Contrastive losses and what tells whether they still teach: pure functions of tensors."""

from __future__ import annotations

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
