"""The interface to pretraining data: images, recorded frames, sentences, or any other source of batches and views."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from curl_rl.objectives import DataSpec, Modality, Need, Objective, ViewSpec


class Batch(Protocol):
    """Some samples of a source, on its device; any other fields are private to the source."""

    @property
    def indices(self) -> Tensor:
        """``(B,)`` int64: positions of the samples in the source."""

    @property
    def labels(self) -> Tensor | None:
        """``(B,)`` int64, positions in :attr:`Source.classes`; None if the samples have no classes."""

    @property
    def actions(self) -> Tensor | None:
        """``(B, K, A)``, as in :class:`~curl_rl.objectives.BatchInfo`; None if not requested."""

    @property
    def contents(self) -> Tensor | None:
        """``(B, S)`` int64, as in :class:`~curl_rl.objectives.BatchInfo`; None if a sample has one part."""

    @property
    def hidden(self) -> Tensor | None:
        """``(B, H, 2)`` int64, as in :class:`~curl_rl.objectives.BatchInfo`; None without a masked view."""


B = TypeVar("B", bound=Batch)


class Source(Protocol[B]):
    """Batches of samples, and the views of a batch that an objective compares."""

    name: str
    """Name in messages."""
    unit: str
    """Name of one sample, such as ``image``; the x axis of a run counts these."""
    size: int
    """Side of the images that views are cut from, in pixels; of texts, the largest number of tokens."""
    shapes: Mapping[Modality, tuple[int, int, int]]
    """The encoders' input shapes, for each kind of input that the samples have: of images ``(C, H, W)`` of a view, of
    texts ``(V, 1, L)`` (:class:`~curl_rl.encoders.TextEncoder`). With both, a sample is a pair."""
    classes: tuple[str, ...]
    """Names of the classes; empty if there are none."""
    identity: str
    """Fingerprint of the samples, their order and their classes, as far as their names reveal it."""
    provenance: dict[str, Any]
    """Description of the samples that is stored with the encoder, JSON-serializable."""
    data: DataSpec
    """Sizes of the data, for methods that depend on them."""
    has: frozenset[Need]
    """Needs of a method that this source satisfies."""

    def __len__(self) -> int: ...

    def batches_per_epoch(self, batch_size: int) -> int:
        """Number of whole batches that :meth:`batches` yields per epoch."""

    def batches(
        self, batch_size: int, *, seed: int, epoch: int = 0, start_batch: int = 0, rank: int = 0, world_size: int = 1
    ) -> Iterator[B]:
        """Yields one epoch of whole batches, in an order that depends on ``seed`` and ``epoch`` alone.

        Args:
            batch_size: samples per batch, over all processes.
            seed: the run's seed.
            epoch: index of the epoch.
            start_batch: number of batches to skip, for a resumed run.
            rank: index of this process, which receives its contiguous share of every batch.
            world_size: number of processes.
        """

    def everything(self, batch_size: int, *, rank: int = 0, world_size: int = 1) -> Iterator[B]:
        """Yields every sample once, in order; the last batch may be smaller, and a process's share of it empty."""

    def views(self, batch: B, generator: torch.Generator) -> dict[ViewSpec, Tensor]:
        """Makes random views of each sample, keyed by the objective's view specs.

        ``(B, C, H, W)`` of images, ``(B, L)`` tokens of texts.
        """

    def center(self, batch: B) -> Tensor:
        """The deterministic view of each sample that is encoded in evaluation, ``(B, C, H, W)``; of texts alone, their
        tokens."""


def views_of(objective: Objective) -> tuple[ViewSpec, ...]:
    """The distinct views that an objective compares, in the order in which a source makes them."""
    views = {*objective.online_views, *objective.target_views}
    return tuple(sorted(views, key=lambda view: (view.modality, view.index, view.future, view.masked)))
