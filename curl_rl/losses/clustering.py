"""Losses on cluster assignments: balanced soft codes (SwAV)."""

from __future__ import annotations

from torch import Tensor

from curl_rl.losses.half_precision import widened


def sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Soft assignments of a batch to prototypes that use all prototypes about equally (Sinkhorn-Knopp).

    The iteration of the released SwAV (arXiv 2006.09882, equations 3 to 5): exp(scores/ε) is scaled to columns of equal
    mass, then to rows of equal mass. Here it works on logarithms, which stay finite where exp(scores/ε) overflows.
    It ends with the rows, so these sum to 1, whereas the columns are balanced only in the limit of many iterations.

    Args:
        scores: ``(B, K)`` similarities of B embeddings with K prototypes. Half precision is widened to float32.
        epsilon: weight of the assignment's entropy; near 0 the assignment becomes hard.
        iterations: number of times that columns and rows are scaled.

    Returns:
        ``(B, K)`` probabilities over the prototypes.

    Raises:
        ValueError: ``epsilon`` is 0 or less, or ``iterations`` is below 1.
    """
    if not epsilon > 0:
        raise ValueError(f"epsilon must be above 0, got {epsilon:g}")
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    codes = widened(scores) / epsilon
    for _ in range(iterations):
        codes = codes.log_softmax(0).log_softmax(1)
    # Changes only the last bits: normalizes the probabilities themselves instead of their logarithms.
    return codes.softmax(1)
