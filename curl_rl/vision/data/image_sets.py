"""Images of one size, given in batches in an order that can be resumed.

Small sets lie in memory as one uint8 tensor where they are augmented; larger ones stream from decoding workers. Both
give the same batches, pixel for pixel.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from curl_rl.runs.errors import UserError
from curl_rl.runs.storage import available_memory
from curl_rl.vision.data.decoding import decode, say_unreadable

Split = Literal["train", "test"]
Storage = Literal["auto", "memory", "stream"]

_SHARE_OF_MEMORY = 0.25  # of what is free: training wants the rest
_GIVE_UP = 1000  # unreadable images in a row, from which on the disk is at fault and not the images


def lies_in_memory(storage: Storage, needed: int, device: torch.device, what: str, advice: str) -> bool:
    """Whether images of so many bytes are to be kept on the device; auto: if they take no more than a quarter of it.

    Args:
        storage: as it was asked for.
        needed: bytes of all images.
        device: where they would lie; they come there through the host's memory.
        what: they are, for the message.
        advice: on what else could be done.

    Raises:
        UserError: memory was asked for, and they do not fit.
    """
    free = available_memory()
    if device.type == "cuda":
        free = min(free, torch.cuda.mem_get_info(device)[0])
    if storage == "memory" and needed > free:
        raise UserError(
            f"storage memory: {what} take {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free: take "
            f"compute.storage stream{advice}"
        )
    return storage == "memory" or (storage == "auto" and needed <= _SHARE_OF_MEMORY * free)


class ImageBatch(NamedTuple):
    """Some images of an :class:`ImageSet`, on its device."""

    images: Tensor
    """``(B, C, S, S)`` uint8; C = 3, and more for stacks of frames."""
    labels: Tensor | None
    """``(B,)`` int64: positions in :attr:`ImageSet.classes`; None where the images have no classes."""
    indices: Tensor
    """``(B,)`` int64: which images of the set these are."""
    later: Mapping[int, Tensor] = MappingProxyType({})
    """``(B, C, S, S)`` uint8 by agent steps: what the same places showed so much later, as :meth:`ImageSet.ahead`
    asked for it."""
    actions: Tensor | None = None
    """``(B, K, A)`` float32: the actions taken from the observation on, as :meth:`ImageSet.ahead` asked for them; zeros
    after the end of the episode."""


class ImageSet:
    """Images of one size, given in batches.

    Args:
        name: what error messages call it.
        count: number of images.
        size: their side S in pixels.
        classes: names of the classes; empty where there are none.
        labels: ``(count,)`` int64, or None.
        device: where batches are given.
        skipped: names of images that could not be read.
    """

    def __init__(
        self,
        name: str,
        count: int,
        size: int,
        classes: tuple[str, ...],
        labels: Tensor | None,
        device: torch.device,
        skipped: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.size = size
        self.channels = 3
        """Channels of each; more in stacks of frames."""
        self.provenance: dict[str, Any] = {}
        """What an encoder that learnt from them will say of them, beside their name."""
        self.identity = ""
        """The same for the same images in the same order, of the same classes; as far as their names tell."""
        self.action_dim: int | None = None
        """Size of the actions between the images, where these are frames of an environment."""
        self.classes = classes
        self.labels = None if labels is None else labels.to(device)
        self.device = device
        self.skipped = skipped
        self._count = count

    def __len__(self) -> int:
        return self._count

    def ahead(self, offsets: Sequence[int], actions: int = 0) -> ImageSet:
        """The same set, whose batches also hold what each place showed later.

        Args:
            offsets: how much later, in agent steps, at most to the end of the episode; none of them 0.
            actions: how many actions to give, from each place on; 0, none.

        Raises:
            UserError: these are single images, which have no later moment.
        """
        if offsets or actions:
            raise UserError(
                f"{self.name} holds single images, and the method compares them with later ones: take frames recorded "
                "by scripts/record_frames.py, or another method"
            )
        return self

    def required_labels(self) -> Tensor:
        """``(N,)`` labels.

        Raises:
            UserError: the images have none, or all the same one.
        """
        if self.labels is None:
            raise UserError(f"labels are needed, and {self.name} has none: put its images into <class>/ folders")
        if len(self.labels.unique()) < 2:
            only = self.classes[int(self.labels[0])]
            raise UserError(f"two or more classes are needed, and {self.name} has images of one only: {only}")
        return self.labels

    def batches_per_epoch(self, batch_size: int, *, drop_last: bool = True) -> int:
        """Batches that :meth:`batches` gives in a whole epoch."""
        return self._count // batch_size if drop_last else -(-self._count // batch_size)

    def batches(
        self,
        batch_size: int,
        *,
        seed: int = 0,
        epoch: int = 0,
        start_batch: int = 0,
        shuffle: bool = True,
        drop_last: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ) -> Iterator[ImageBatch]:
        """One epoch, in an order that depends on ``seed`` and ``epoch`` alone.

        Args:
            batch_size: images in a batch, of all processes together.
            seed: of the run.
            epoch: which epoch.
            start_batch: batches to leave out at the beginning: where a resumed run was.
            shuffle: False gives the images as they lie, whatever seed and epoch are.
            drop_last: every batch has exactly ``batch_size`` images, and those that are left over wait for another
                epoch; False gives each image once, in a shorter last batch at the end.
            rank: this process, which is given its consecutive share of every batch.
            world_size: processes; shares differ by one image where the number does not divide the batch.

        Raises:
            UserError: a number out of range, or with ``drop_last`` a batch larger than the set.
        """
        if batch_size < 1:
            raise UserError(f"batch_size must be at least 1, got {batch_size}")
        if drop_last and batch_size > self._count:
            raise UserError(f"batch_size {batch_size} is larger than {self.name}, which has {self._count} images")
        whole = self.batches_per_epoch(batch_size, drop_last=drop_last)
        if not 0 <= start_batch <= whole:
            raise UserError(f"start_batch must be between 0 and the epoch's {whole} batches, got {start_batch}")
        if not 0 <= rank < world_size:
            raise UserError(f"rank must be at least 0 and below world_size, got {rank} of {world_size}")
        order = epoch_order(self._count, seed, epoch) if shuffle else torch.arange(self._count)
        chosen = order.split(batch_size)[start_batch:whole]
        return self._read([places.tensor_split(world_size)[rank] for places in chosen], drop_last)

    def everything(self) -> ImageBatch:
        """All images in their order, as one batch: for sets that fit into memory."""
        (batch,) = self.batches(len(self), shuffle=False)
        return batch

    def _read(self, batches: list[Tensor], fill: bool) -> Iterator[ImageBatch]:
        """The images at these places; ``fill``: in place of one that cannot be read, another one."""
        raise NotImplementedError


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """``(count,)`` int64: the images' order in an epoch, a pure function of its arguments."""
    return torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(count))


class ResidentImages(ImageSet):
    """Images that lie in memory, on the device where they are used: ``images``, ``(N, 3, S, S)`` uint8.

    Raises:
        ValueError: images of another shape or type.
    """

    def __init__(
        self,
        name: str,
        images: Tensor,
        classes: tuple[str, ...] = (),
        labels: Tensor | None = None,
        skipped: tuple[str, ...] = (),
    ) -> None:
        if (
            images.ndim != 4
            or images.shape[1] != 3
            or images.shape[2] != images.shape[3]
            or images.dtype != torch.uint8
        ):
            raise ValueError(f"images must be (N, 3, S, S) uint8, got {tuple(images.shape)} {images.dtype}")
        super().__init__(name, len(images), images.shape[-1], classes, labels, images.device, skipped)
        self.images = images

    def everything(self) -> ImageBatch:
        return ImageBatch(self.images, self.labels, torch.arange(len(self), device=self.device))

    def _read(self, batches: list[Tensor], fill: bool) -> Iterator[ImageBatch]:
        # One copy to the device for the epoch: a copy for each batch would make the host wait.
        sizes = [len(batch) for batch in batches]
        everything = torch.cat([torch.empty(0, dtype=torch.int64), *batches]).to(self.device)
        for indices in everything.split(sizes):
            labels = None if self.labels is None else self.labels[indices]
            yield ImageBatch(self.images[indices], labels, indices)


class StreamedImages(ImageSet):
    """Images that are decoded as they are asked for, by worker processes.

    An image that turns out unreadable is named, counted in :attr:`skipped` and left out of its batch, which is shorter
    then; with ``drop_last``, where batches have one size, the next readable image of the set takes its place.

    Args:
        name: what error messages call it.
        paths: the files.
        size: side S in pixels.
        classes: names of the classes; empty where there are none.
        labels: ``(N,)`` int64, or None.
        device: where batches are given.
        workers: decoding processes; 0 decodes in this one.
        skipped: names of images that are known to be unreadable, and not among ``paths``.
    """

    def __init__(
        self,
        name: str,
        paths: list[str],
        size: int,
        classes: tuple[str, ...],
        labels: Tensor | None,
        device: torch.device,
        workers: int,
        skipped: tuple[str, ...] = (),
    ) -> None:
        super().__init__(name, len(paths), size, classes, labels, device, skipped)
        self._paths = paths
        self._workers = workers

    def _read(self, batches: list[Tensor], fill: bool) -> Iterator[ImageBatch]:
        loader: DataLoader[_Decoded] = DataLoader(
            _Decoder(self._paths, self.size, fill),
            sampler=[batch.tolist() for batch in batches],
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=self._workers,
            multiprocessing_context=_worker_context() if self._workers else None,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # the global one would be drawn from, once more in a run that was resumed
        )
        for wanted, (images, places, problems) in zip(batches, loader, strict=True):
            for path, problem in ((self._paths[place], problem) for place, problem in problems):
                if path not in self.skipped:
                    self.skipped += (path,)
                    say_unreadable(path, problem)
            if fill and len(places) < len(wanted):
                raise UserError(
                    f"{len(problems)} images of {self.name} in a row cannot be read: is the disk still there?"
                )
            indices = places.to(self.device, non_blocking=True)
            labels = None if self.labels is None else self.labels[indices]
            yield ImageBatch(images.to(self.device, non_blocking=True), labels, indices)


_Decoded = tuple[Tensor, Tensor, list[tuple[int, str]]]


class _Decoder(Dataset[_Decoded]):
    """Places in, a batch of pixels out: what a worker process holds."""

    def __init__(self, paths: list[str], size: int, fill: bool) -> None:
        self.paths, self.size, self.fill = paths, size, fill

    def __getitem__(self, places: list[int]) -> _Decoded:
        images = torch.empty((len(places), 3, self.size, self.size), dtype=torch.uint8)
        found: list[int] = []
        problems: dict[int, str] = {}
        for wanted in places:
            tries = min(_GIVE_UP, len(self.paths)) if self.fill else 1
            for place in (number % len(self.paths) for number in range(wanted, wanted + tries)):
                if place not in problems:
                    problem = decode(self.paths[place], self.size, images[len(found)].numpy())
                    if problem is None:
                        found.append(place)
                        break
                    problems[place] = problem
            else:
                if self.fill:
                    break
        return images[: len(found)], torch.tensor(found, dtype=torch.int64), list(problems.items())


def _as_it_is(decoded: Any) -> Any:
    return decoded


def _worker_context() -> multiprocessing.context.BaseContext:
    # A fork of this process could hang: it has threads, perhaps a GPU. The server forks in its stead, from a process
    # that has imported this module and done nothing else, so that workers are there at once in every epoch.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context
