"""The nearest neighbors of some images, to be looked at."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def nearest(features: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` nearest others of some images by cosine similarity, nearest first.

    Args:
        features: ``(N, D)``, of all images.
        queries: ``(Q,)`` int64, positions of some of them.
        k: fewer than N.

    Returns:
        ``(Q, k)`` positions, never the query's own; ``(Q, k)`` similarities.

    Raises:
        ValueError: there are not more than ``k`` images.
    """
    if not 0 < k < len(features):
        raise ValueError(f"k must be from 1 to {len(features) - 1}, got {k}")
    unit = F.normalize(features.float(), dim=1)
    similarity = unit[queries] @ unit.T
    similarity[torch.arange(len(queries)), queries] = -torch.inf
    found = similarity.topk(k, dim=1)
    return found.indices, found.values
