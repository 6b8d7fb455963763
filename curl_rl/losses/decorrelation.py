"""Losses on the cross-correlation of two views' embeddings (Barlow Twins)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from curl_rl.losses.half_precision import widened


def cross_correlation(first: Tensor, second: Tensor, eps: float = 1e-5) -> Tensor:
    """Correlation over the batch of every feature of one view with every feature of the other, in [−1, 1].

    Args:
        first: ``(B, D)`` embeddings of one view, B ≥ 2.
        second: ``(B, E)`` embeddings of the other view.
        eps: added to the variances, above 0.

    Returns:
        ``(D, E)`` (Barlow Twins, arXiv 2103.03230, equation 2).

    Raises:
        ValueError: fewer than 2 samples.
    """
    if len(first) < 2:
        raise ValueError(f"correlations need at least 2 samples in a batch (batch_size), got {len(first)}")

    def standardized(embeddings: Tensor) -> Tensor:
        return F.batch_norm(widened(embeddings), None, None, training=True, eps=eps)

    return standardized(first).T @ standardized(second) / len(first)


def redundancy(correlation: Tensor, off_diagonal_weight: float) -> Tensor:
    """Σᵢ (1 − Cᵢᵢ)² + weight · Σᵢ≠ⱼ Cᵢⱼ² of a ``(D, D)`` correlation (Barlow Twins, arXiv 2103.03230, equation 1)."""
    diagonal = correlation.diagonal()
    off_diagonal = correlation - diagonal.diag()  # exact, unlike the sum of all squares minus the diagonal's
    return (1 - diagonal).square().sum() + off_diagonal_weight * off_diagonal.square().sum()
