"""Sets of images of one size, in batches whose order can be resumed.

Small sets are one uint8 tensor in the memory of the device that augments them; larger ones are streamed from decoding
workers. Both yield the same batches, pixel for pixel.
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

from curl_rl.runs.console import counted
from curl_rl.runs.errors import UserError
from curl_rl.runs.storage import available_memory
from curl_rl.vision.data.decoding import decode, say_unreadable

Split = Literal["train", "test"]
Storage = Literal["auto", "memory", "stream"]
SmallImages = Literal["auto", "upscale", "skip", "refuse"]

_SHARE_OF_MEMORY = 0.25  # of the free memory: training needs the rest
_GIVE_UP = 1000  # consecutive unreadable images after which the disk is to blame, not the images


def lies_in_memory(storage: Storage, needed: int, device: torch.device, what: str, advice: str) -> bool:
    """Returns whether to keep the images on the device; auto: if they take at most a quarter of the free memory.

    Args:
        storage: the requested storage.
        needed: bytes of all images.
        device: device to keep them on; they pass through the host's memory.
        what: description of the images, for the message.
        advice: further advice, for the message.

    Raises:
        UserError: memory is requested, but the images do not fit.
    """
    free = available_memory()
    if device.type == "cuda":
        free = min(free, torch.cuda.mem_get_info(device)[0])
    if storage == "memory" and needed > free:
        raise UserError(
            f"storage memory: {what} take {needed / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free: use "
            f"compute.storage stream{advice}"
        )
    return storage == "memory" or (storage == "auto" and needed <= _SHARE_OF_MEMORY * free)


class ImageBatch(NamedTuple):
    """Some images of an :class:`ImageSet`, on its device."""

    images: Tensor
    """``(B, C, S, S)`` uint8; C = 3, or more for stacks of frames."""
    labels: Tensor | None
    """``(B,)`` int64: positions in :attr:`ImageSet.classes`; None if the images have no classes."""
    indices: Tensor
    """``(B,)`` int64: positions of the images in the set."""
    later: Mapping[int, Tensor] = MappingProxyType({})
    """``(B, C, S, S)`` uint8, by number of agent steps: the observations that much later, as requested from
    :meth:`ImageSet.ahead`."""
    actions: Tensor | None = None
    """``(B, K, A)`` float32: the actions from the observation on, as requested from :meth:`ImageSet.ahead`; zeros after
    the end of the episode."""
    epoch: int = 0
    """The epoch that the batch belongs to; 0 outside of training."""
    contents: None = None
    """An image has one part."""
    hidden: None = None
    """Images have no tokens."""


class ImageSet:
    """Images of one size, in batches.

    Args:
        name: name in error messages.
        count: number of images.
        size: their side S in pixels.
        classes: names of the classes; empty if there are none.
        labels: ``(count,)`` int64, or None.
        device: device of the batches.
        skipped: paths of images that are left out, such as unreadable ones.
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
        """Channels per image; more in stacks of frames."""
        self.provenance: dict[str, Any] = {}
        """Facts about the images to store with an encoder, in addition to their name."""
        self.paths: tuple[str, ...] = ()
        """The images' files, in order; empty for other data."""
        self.identity = ""
        """Fingerprint of the images, their order and their classes, as far as their names reveal it."""
        self.layout = ""
        """What the parts of a folder were taken for, in one line; empty for other data and for test images."""
        self.action_dim: int | None = None
        """Size of the actions between the images, if they are frames of an environment."""
        self.classes = classes
        self.labels = None if labels is None else labels.to(device)
        self.device = device
        self.skipped = skipped
        self._count = count

    def __len__(self) -> int:
        return self._count

    def ahead(self, offsets: Sequence[int], actions: int = 0) -> ImageSet:
        """Returns the same set with later observations and actions in its batches.

        Args:
            offsets: agent steps to the later observations, clipped to the end of the episode; none of them 0.
            actions: number of actions, starting at each observation; 0, none.

        Raises:
            UserError: the set holds single images, which have no later observations.
        """
        if offsets or actions:
            raise UserError(
                f"{self.name} holds single images, but the method compares them with later ones: use frames recorded "
                "by scripts/record_frames.py, or another method"
            )
        return self

    def required_labels(self) -> Tensor:
        """``(N,)`` labels.

        Raises:
            UserError: the images have no labels, or all have the same one.
        """
        if self.labels is None:
            raise UserError(f"labels are needed, but {self.name} has none: put its images into <class>/ folders")
        if len(self.labels.unique()) < 2:
            only = self.classes[int(self.labels[0])]
            raise UserError(f"two or more classes are needed, but {self.name} has only one: {only}")
        return self.labels

    def batches_per_epoch(self, batch_size: int, *, drop_last: bool = True) -> int:
        """Number of batches that :meth:`batches` yields per whole epoch."""
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
        """Yields one epoch, in an order that depends on ``seed`` and ``epoch`` alone.

        Args:
            batch_size: images per batch, over all processes.
            seed: the run's seed.
            epoch: index of the epoch.
            start_batch: number of batches to skip, for a resumed run.
            shuffle: False keeps the images in order, whatever seed and epoch are.
            drop_last: every batch has exactly ``batch_size`` images, and this epoch skips the remainder; False yields
                every image once, with a shorter last batch.
            rank: index of this process, which receives its contiguous share of every batch.
            world_size: number of processes; shares may differ by one image.

        Raises:
            UserError: a number is out of range, or ``drop_last`` is set and a batch is larger than the set.
        """
        if batch_size < 1:
            raise UserError(f"batch_size must be at least 1, got {batch_size}")
        if drop_last and batch_size > self._count:
            raise UserError(
                f"batch_size {batch_size} is larger than {self.name}, which has {counted(self._count, 'image')}"
            )
        whole = self.batches_per_epoch(batch_size, drop_last=drop_last)
        if not 0 <= start_batch <= whole:
            raise UserError(f"start_batch must be between 0 and the epoch's {whole} batches, got {start_batch}")
        if not 0 <= rank < world_size:
            raise UserError(f"rank must be at least 0 and below world_size, got {rank} of {world_size}")
        order = epoch_order(self._count, seed, epoch) if shuffle else torch.arange(self._count)
        chosen = order.split(batch_size)[start_batch:whole]
        return self._read([places.tensor_split(world_size)[rank] for places in chosen], drop_last)

    def everything(self) -> ImageBatch:
        """Returns all images in order, as one batch, for sets that fit into memory."""
        (batch,) = self.batches(len(self), shuffle=False)
        return batch

    def _read(self, batches: list[Tensor], fill: bool) -> Iterator[ImageBatch]:
        """Yields the images at these positions; ``fill`` replaces unreadable images by others."""
        raise NotImplementedError


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """``(count,)`` int64: the order of the images in an epoch, a pure function of the arguments."""
    return torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(count))


class ResidentImages(ImageSet):
    """Images in the memory of the device that uses them: ``images``, ``(N, 3, S, S)`` uint8.

    Raises:
        ValueError: ``images`` has another shape or dtype.
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
        # One copy to the device per epoch: a copy per batch would make the host wait.
        sizes = [len(batch) for batch in batches]
        everything = torch.cat([torch.empty(0, dtype=torch.int64), *batches]).to(self.device)
        for indices in everything.split(sizes):
            labels = None if self.labels is None else self.labels[indices]
            yield ImageBatch(self.images[indices], labels, indices)


class StreamedImages(ImageSet):
    """Images decoded on demand by worker processes.

    An image that proves unreadable is reported, added to :attr:`skipped` and omitted from its batch, which becomes
    shorter; with ``drop_last``, which fixes the batch size, the next readable image of the set replaces it.

    Args:
        name: name in error messages.
        paths: the files.
        size: side S in pixels.
        classes: names of the classes; empty if there are none.
        labels: ``(N,)`` int64, or None.
        device: device of the batches.
        workers: decoding processes; 0 decodes in this process.
        skipped: paths of images known to be unreadable, not among ``paths``.
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
            generator=torch.Generator(),  # the default would draw from the global one, once more in a resumed run
        )
        for wanted, (images, places, problems) in zip(batches, loader, strict=True):
            for path, problem in ((self._paths[place], problem) for place, problem in problems):
                if path not in self.skipped:
                    self.skipped += (path,)
                    say_unreadable(path, problem)
            if fill and len(places) < len(wanted):
                raise UserError(
                    f"{len(problems)} consecutive images of {self.name} cannot be read: is the disk still there?"
                )
            indices = places.to(self.device, non_blocking=True)
            labels = None if self.labels is None else self.labels[indices]
            yield ImageBatch(images.to(self.device, non_blocking=True), labels, indices)


_Decoded = tuple[Tensor, Tensor, list[tuple[int, str]]]


class _Decoder(Dataset[_Decoded]):
    """Decodes a batch of images by their positions, in a worker process."""

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
    # Forking this process could hang: it has threads and perhaps a GPU. A fork server, which has only imported this
    # module, forks instead, so that workers start quickly in every epoch.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context
