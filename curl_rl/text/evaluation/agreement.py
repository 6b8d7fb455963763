"""Agreement of two orders: Spearman's rank correlation, the usual measure of similarities against human judgments."""

from __future__ import annotations

import torch
from torch import Tensor


def spearman(first: Tensor, second: Tensor) -> Tensor:
    """Spearman's ρ: Pearson's correlation of the ranks, in which equal values share the mean of their ranks.

    Args:
        first: ``(N,)``, N at least 2.
        second: ``(N,)``.

    Returns:
        A scalar in [−1, 1], float64; NaN if one of them is constant, which has no order.

    Raises:
        ValueError: the sizes differ or there are fewer than two values.
    """
    if first.ndim != 1 or first.shape != second.shape or len(first) < 2:
        raise ValueError(f"both must be (N,) with N at least 2, got {tuple(first.shape)} and {tuple(second.shape)}")
    ranks = torch.stack([mean_ranks(first), mean_ranks(second)])
    centered = ranks - ranks.mean(1, keepdim=True)
    covariance = centered @ centered.T
    return covariance[0, 1] / (covariance[0, 0] * covariance[1, 1]).sqrt()


def mean_ranks(values: Tensor) -> Tensor:
    """``(N,)`` float64 ranks from 1; equal values share the mean of their ranks."""
    _, places, counts = values.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts - 1) / 2)[places]
