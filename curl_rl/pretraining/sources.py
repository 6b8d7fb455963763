"""What a pretraining run learns from: images, recorded frames, or anything else that gives batches and views."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from curl_rl.objectives import DataSpec, Need, Objective, ViewSpec


class Batch(Protocol):
    """Some samples of a source, on its device; whatever else they hold is between the source and itself."""

    @property
    def indices(self) -> Tensor:
        """``(B,)`` int64: which samples of the source these are."""

    @property
    def labels(self) -> Tensor | None:
        """``(B,)`` int64, positions in :attr:`Source.classes`; None where the samples have no classes."""

    @property
    def actions(self) -> Tensor | None:
        """``(B, K, A)``, as of :class:`~curl_rl.objectives.BatchInfo`; None where nobody asked for them."""


B = TypeVar("B", bound=Batch)


class Source(Protocol[B]):
    """Samples in batches, and the views of a batch that an objective compares."""

    name: str
    """What messages call it."""
    unit: str
    """What one sample is, such as ``image``; the x axis of a run counts these."""
    size: int
    """Side in pixels of what the views are cut from."""
    shape: tuple[int, int, int]
    """``(C, H, W)`` of a view, for which the encoder is made."""
    classes: tuple[str, ...]
    """Names of the classes; empty where there are none."""
    identity: str
    """The same for the same samples in the same order, of the same classes; as far as their names tell."""
    provenance: dict[str, Any]
    """What an encoder that learned from them will say of them, as JSON can hold it."""
    data: DataSpec
    """Its sizes, for methods that depend on them."""
    has: frozenset[Need]
    """What a method may depend on here."""

    def __len__(self) -> int: ...

    def batches_per_epoch(self, batch_size: int) -> int:
        """Whole batches that :meth:`batches` gives in an epoch."""

    def batches(
        self, batch_size: int, *, seed: int, epoch: int = 0, start_batch: int = 0, rank: int = 0, world_size: int = 1
    ) -> Iterator[B]:
        """One epoch of whole batches, in an order that depends on ``seed`` and ``epoch`` alone.

        Args:
            batch_size: samples in a batch, of all processes together.
            seed: of the run.
            epoch: which epoch.
            start_batch: batches to leave out at the beginning: where a resumed run was.
            rank: this process, which is given its consecutive share of every batch.
            world_size: processes.
        """

    def everything(self, batch_size: int, *, rank: int = 0, world_size: int = 1) -> Iterator[B]:
        """Every sample once, in order; the last batch may be smaller, and a share of it empty."""

    def views(self, batch: B, generator: torch.Generator) -> dict[ViewSpec, Tensor]:
        """Random views of each sample, ``(B, C, H, W)`` each, by the view that the objective names."""

    def center(self, batch: B) -> Tensor:
        """The one view of each sample that has nothing random, ``(B, C, H, W)``: the encoder's in evaluation."""


def views_of(objective: Objective) -> tuple[ViewSpec, ...]:
    """The views that an objective compares, each once, in the order in which a source makes them."""
    views = {*objective.online_views, *objective.target_views}
    return tuple(sorted(views, key=lambda view: (view.modality, view.index, view.future)))
