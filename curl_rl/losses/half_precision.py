"""Half-precision embeddings are widened to float32 before anything is summed or exponentiated."""

from __future__ import annotations

import torch
from torch import Tensor


def widened(embeddings: Tensor) -> Tensor:
    """Embeddings in float32 or, where they are wider already, as they are."""
    return embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
