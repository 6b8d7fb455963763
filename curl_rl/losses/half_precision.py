"""Widening of half-precision embeddings to float32, before anything is summed or exponentiated."""

from __future__ import annotations

import torch
from torch import Tensor


def widened(embeddings: Tensor) -> Tensor:
    """The embeddings in float32, or unchanged if they are wider already."""
    return embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
