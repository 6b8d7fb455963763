"""Half-precision embeddings are widened to float32 before anything is summed or exponentiated."""

from __future__ import annotations

import torch
from torch import Tensor


def widened(embeddings: Tensor) -> Tensor:
    return embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
