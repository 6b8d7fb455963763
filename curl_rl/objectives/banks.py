"""Banks of past embeddings: a ring of the newest, such a ring for each class, and a table with one per image."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Ring(nn.Module):
    """A ring of the last ``size`` embeddings, the oldest overwritten first (MoCo's queue, arXiv 1911.05722).

    All state is in buffers: saved and restored with the module, never read by the host. The ring starts empty;
    ``valid`` marks the filled slots, so that no made-up vector ever serves as a negative.

    Raises:
        ValueError: ``size`` or ``dim`` is below 1; in ``push``, more embeddings than slots.
    """

    embeddings: Tensor
    """``(size, dim)``, in no particular order."""
    pushed: Tensor
    """Number of embeddings pushed so far, a scalar integer; modulo ``size``, the slot of the next one."""

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        if size < 1 or dim < 1:
            raise ValueError(f"a ring needs a size and a dim of at least 1, got {size} and {dim}")
        self.register_buffer("embeddings", torch.zeros(size, dim))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.int64))

    @property
    def valid(self) -> Tensor:
        """``(size,)`` booleans, True for slots that hold an embedding."""
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


class ClassRings(nn.Module):
    """A ring of the last ``size`` embeddings of each class (ORE's feature store, arXiv 2103.02603, algorithm 1).

    All state is in buffers: saved and restored with the module, never read by the host. The rings start empty, and
    classes that have no embedding have no mean.

    Args:
        classes: number of classes.
        size: embeddings kept of each.
        dim: size of an embedding.

    Raises:
        ValueError: a size is below 1.
    """

    embeddings: Tensor
    """``(classes, size, dim)``, those of a class in no particular order."""
    pushed: Tensor
    """``(classes,)`` integers: embeddings pushed so far; modulo ``size``, the slot of a class's next one."""

    def __init__(self, classes: int, size: int, dim: int) -> None:
        super().__init__()
        if min(classes, size, dim) < 1:
            raise ValueError(f"classes, size and dim must be at least 1, got {classes}, {size} and {dim}")
        self.register_buffer("embeddings", torch.zeros(classes, size, dim))
        self.register_buffer("pushed", torch.zeros(classes, dtype=torch.int64))

    @torch.no_grad()
    def push(self, embeddings: Tensor, labels: Tensor) -> None:
        """Writes embeddings over the oldest of their classes; of more than ``size`` of one class, the last count.

        Args:
            embeddings: ``(B, dim)``.
            labels: ``(B,)`` classes; embeddings with a negative one are left out.
        """
        classes, size = self.embeddings.shape[:2]
        of_class = labels[:, None] == torch.arange(classes, device=labels.device)  # (B, C)
        rank, count = of_class.cumsum(0) - 1, of_class.sum(0)
        # The slot of every sample in the ring of every class, and whether it goes there: no two go to one slot.
        written = of_class & (count - rank <= size)
        goes = written[:, :, None] & (
            ((self.pushed + rank) % size)[:, :, None] == torch.arange(size, device=rank.device)
        )
        source = goes.int().argmax(0)  # (C, size)
        new = embeddings.to(self.embeddings.dtype)[source]
        self.embeddings.copy_(torch.where(goes.any(0)[:, :, None], new, self.embeddings))
        self.pushed += count

    def means(self) -> Tensor:
        """``(classes, dim)``: each class's mean; zeros for a class without embeddings."""
        size = self.embeddings.shape[1]
        filled = torch.arange(size, device=self.pushed.device) < self.pushed[:, None]
        return (self.embeddings * filled[:, :, None]).sum(1) / filled.sum(1).clamp_min(1)[:, None]


class Window(NamedTuple):
    """Consecutive rows of a :class:`Table`."""

    indices: Tensor
    """``(size,)`` integers, the indices of the rows."""
    embeddings: Tensor
    """``(size, dim)``."""
    known: Tensor
    """``(size,)`` booleans, True for rows that hold an embedding."""


class Table(nn.Module):
    """One embedding for each of ``count`` images, looked up by index (InstDisc's memory, arXiv 1805.01978).

    All state is in buffers: saved and restored with the module, never read by the host. The table starts empty;
    ``known`` marks the filled rows, so that nothing is ever compared with a made-up vector.

    Args:
        count: number of images. None, for data without a fixed set of images, is refused.
        dim: size of an embedding.

    Raises:
        ValueError: ``count`` is None or below 1, ``dim`` is below 1; in ``window``, more rows than the table has.
    """

    embeddings: Tensor
    """``(count, dim)``, zero where unknown."""
    known: Tensor
    """``(count,)`` booleans, True for rows that hold an embedding."""

    def __init__(self, count: int | None, dim: int) -> None:
        super().__init__()
        if count is None or count < 1:
            raise ValueError(f"count must be the number of images, at least 1, got {count}: a table needs a fixed set")
        if dim < 1:
            raise ValueError(f"dim must be at least 1, got {dim}")
        self.register_buffer("embeddings", torch.zeros(count, dim))
        self.register_buffer("known", torch.zeros(count, dtype=torch.bool))

    @torch.no_grad()
    def update(self, indices: Tensor, new: Tensor, momentum: float | Tensor) -> None:
        """Moves rows toward new embeddings: momentum · old + (1 − momentum) · new, scaled to length 1.

        An unknown row takes the new embedding unchanged. If an index occurs more than once, only its last embedding
        counts, and the row moves once.

        Args:
            indices: ``(B,)`` integers below ``count``.
            new: ``(B, dim)`` unit vectors.
            momentum: in [0, 1]; 0 overwrites. A tensor must be a scalar on the table's device.
        """
        # Duplicates of an index all write the same value, so the order of writing does not matter.
        order = indices.argsort(stable=True)
        last = order[torch.searchsorted(indices[order], indices, right=True) - 1]
        new = new.to(self.embeddings.dtype)[last]
        moved = F.normalize(momentum * self.embeddings[indices] + (1 - momentum) * new)
        self.embeddings[indices] = torch.where(self.known[indices, None], moved, new)
        self.known.index_fill_(0, indices, True)

    def window(self, size: int, start: Tensor) -> Window:
        """``size`` consecutive rows starting at ``start``, wrapping around at the end.

        Args:
            size: number of rows, at most ``count``.
            start: a scalar integer on the table's device, taken modulo ``count``.
        """
        count = len(self.known)
        if not 1 <= size <= count:
            raise ValueError(f"size must be between 1 and the table's {count} rows, got {size}")
        indices = (start + torch.arange(size, device=self.known.device)) % count
        return Window(indices, self.embeddings[indices], self.known[indices])
