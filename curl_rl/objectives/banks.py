"""Banks of past embeddings: the ring whose entries serve as negatives."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Ring(nn.Module):
    """The last ``size`` embeddings that were pushed, the oldest overwritten first (MoCo's queue, arXiv 1911.05722).

    All of it lies in buffers: saved and resumed with the module, and never read by the host. It starts empty;
    ``valid`` tells which places hold something, so that no made-up vector ever serves as a negative.

    Raises:
        ValueError: ``size`` or ``dim`` below 1; in ``push``, more embeddings than places.
    """

    embeddings: Tensor
    """``(size, dim)``, in no particular order."""
    pushed: Tensor
    """How many embeddings were ever pushed, a scalar integer; the next one goes to this place modulo ``size``."""

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        if size < 1 or dim < 1:
            raise ValueError(f"a ring needs a size and a dim of at least 1, got {size} and {dim}")
        self.register_buffer("embeddings", torch.zeros(size, dim))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.int64))

    @property
    def valid(self) -> Tensor:
        """``(size,)`` booleans: which places hold an embedding."""
        return torch.arange(len(self.embeddings), device=self.pushed.device) < self.pushed

    @torch.no_grad()
    def push(self, embeddings: Tensor) -> None:
        """Writes ``(B, dim)`` embeddings, B ≤ size, over the oldest."""
        size = len(self.embeddings)
        if len(embeddings) > size:
            raise ValueError(f"a ring of {size} embeddings cannot take {len(embeddings)} at once")
        places = (self.pushed + torch.arange(len(embeddings), device=self.pushed.device)) % size
        self.embeddings.index_copy_(0, places, embeddings.to(self.embeddings.dtype))
        self.pushed += len(embeddings)
