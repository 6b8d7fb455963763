"""Principal components: the flat map of an encoder's features."""

from __future__ import annotations

import torch
from torch import Tensor


def principal_components(features: Tensor, count: int = 2) -> tuple[Tensor, Tensor]:
    """The coordinates of ``(N, D)`` features along their first principal components.

    Returns:
        ``(N, count)`` coordinates, zero where there are fewer directions; ``(count,)`` share of the variance that each
        explains, zeros if there is none. The sign of a component is such that its largest coordinate is positive.
    """
    centered = (features - features.mean(0)).double()
    left, values, _ = torch.linalg.svd(centered, full_matrices=False)
    coordinates = features.new_zeros(len(features), count, dtype=torch.float64)
    shares = torch.zeros(count, dtype=torch.float64)
    kept = min(count, len(values))
    coordinates[:, :kept] = left[:, :kept] * values[:kept]
    largest = coordinates.gather(0, coordinates.abs().argmax(0, keepdim=True))
    coordinates = coordinates * torch.where(largest < 0, -1.0, 1.0)
    total = values.square().sum()
    if total > 0:
        shares[:kept] = values[:kept].square() / total
    return coordinates, shares
