"""Images to learn from: a folder of them or a built-in set, as batches of one size in an order that can be resumed.

Small sets lie in memory as one uint8 tensor where they are augmented; larger ones stream from decoding workers. Both
give the same batches, pixel for pixel, through :class:`ImageSet`.

A folder holds ``<class>/*.jpg``, at any depth below the class, or images directly, which have no labels then; or such
a folder in each of ``train`` and ``test`` (or ``val``). Hidden files and other suffixes are passed over. An image that
cannot be decoded is named once on stderr, skipped and counted. What is not RGB is made so: grey, palette and CMYK by
Pillow's conversion, 16 bits by dropping the lower 8, transparency by laying the image on white; the orientation that
the camera noted (EXIF) is applied.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from curl_rl.errors import UserError, one_line
from curl_rl.frames import is_recording

DIGITS = "digits"
"""What the built-in set is called; a folder of that name is ``./digits``."""
Split = Literal["train", "test"]
Storage = Literal["auto", "memory", "stream"]

# Named one by one, because Pillow would take any format under any suffix, PostScript and its interpreter included.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_SHARE_OF_MEMORY = 0.25  # of what is free: training wants the rest
_GIVE_UP = 1000  # unreadable images in a row, from which on the disk is at fault and not the images
_CHUNK = 64  # images that a thread reads at a time

T = TypeVar("T")


class ImageBatch(NamedTuple):
    """Some images of an :class:`ImageSet`, on its device."""

    images: Tensor
    """``(B, C, S, S)`` uint8; C = 3, and more for stacks of frames."""
    labels: Tensor | None
    """``(B,)`` int64: positions in :attr:`ImageSet.classes`; None where the images have no classes."""
    indices: Tensor
    """``(B,)`` int64: which images of the set these are."""
    later: Tensor | None = None
    """``(B, C, S, S)`` uint8: what the same places showed some time later, where that was asked for."""


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
        self.classes = classes
        self.labels = None if labels is None else labels.to(device)
        self.device = device
        self.skipped = skipped
        self._count = count

    def __len__(self) -> int:
        return self._count

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
                    _say_unreadable(path, problem)
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
                    problem = _decode(self.paths[place], self.size, images[len(found)].numpy())
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


# ------------------------------------------------------------------------ loading


def load(
    source: str | Path,
    split: Split = "train",
    size: int | None = None,
    *,
    device: torch.device | str = "cpu",
    storage: Storage = "auto",
    workers: int | None = None,
) -> ImageSet:
    """The images of a folder, or of the built-in set ``digits``.

    Args:
        source: a folder as at the top of this file, or ``digits``: scikit-learn's 1,797 handwritten digits of 8×8
            (``./digits`` for a folder of that name).
        split: train: the folder's ``train``, or the folder itself where it has no splits. test: its ``test`` or
            ``val``. Of each class of the digits every fifth image is for testing.
        size: side S of what is given. The largest centred square of an image is scaled down to S×S (bilinear,
            antialiased), so a view never shows what lies outside of it: for random resized crops choose S above their
            size, as 256 for 224. None: no scaling, where all images have the same shorter side. Digits are scaled up.
        device: where batches are given.
        storage: memory: one tensor on the device. stream: decoded anew in every epoch. auto: memory, if the set takes
            no more than a quarter of what is free. The digits always lie in memory.
        workers: decoding processes of a stream; None: one per core, less one for training.

    Raises:
        UserError: no such folder, or one of recorded frames (see :mod:`curl_rl.vision.recorded`), no such split, fewer
            than two images that can be read, an image smaller than ``size``, images of different sizes where ``size``
            is None, more than fits, or digits without scikit-learn.
    """
    if split not in ("train", "test"):
        raise UserError(f"split must be train or test, got {split!r}")
    if storage not in ("auto", "memory", "stream"):
        raise UserError(f"storage must be auto, memory or stream, got {storage!r}")
    if size is not None and size < 1:
        raise UserError(f"size must be at least 1, got {size}")
    if workers is not None and workers < 0:
        raise UserError(f"workers must be 0 or more, got {workers}")
    if is_recording(source):
        raise UserError(f"{source} holds recorded frames, which have no classes: only pretraining takes them")
    if source == DIGITS:
        return _digits(split, size or 8, torch.device(device))
    directory, classes = _find(Path(source), split)
    return _load_folder(directory, classes, size, torch.device(device), storage, workers)


class _File(NamedTuple):
    path: str
    label: int  # −1 where the images have no classes


def _load_folder(
    directory: Path,
    classes: tuple[str, ...],
    size: int | None,
    device: torch.device,
    storage: Storage,
    workers: int | None,
) -> ImageSet:
    name = str(directory)
    found = _files(directory, classes)
    if not found:
        raise UserError(f"{name} holds no images: no file ends in {', '.join(_SUFFIXES)}")
    # Headers first: sizes that do not fit are an error at the door, not one in the middle of an epoch.
    sides = _in_threads(lambda i: _shorter_side(found[i].path), len(found), f"looking through {name}")
    files = _readable(found, [side if isinstance(side, str) else None for side in sides])
    size = _common_size(name, {file.path: side for file, side in zip(found, sides, strict=True)}, size)

    needed, free = len(files) * 3 * size * size, _free_bytes(device)
    if storage == "memory" and needed > free:
        raise UserError(
            f"storage memory: {len(files)} images of {size}×{size} take {needed / 1e9:.1f} GB and "
            f"{free / 1e9:.1f} GB are free: take compute.storage stream, or a smaller image_size"
        )
    streamed = storage == "stream" or (storage == "auto" and needed > _SHARE_OF_MEMORY * free)
    if not streamed:
        pixels = torch.empty((len(files), 3, size, size), dtype=torch.uint8)
        rows, side = pixels.numpy(), size
        problems = _in_threads(lambda i: _decode(files[i].path, side, rows[i]), len(files), f"reading {name}")
        pixels = pixels[[i for i, problem in enumerate(problems) if problem is None]] if any(problems) else pixels
        files = _readable(files, problems)
    if len(files) < 2:
        raise UserError(f"{name} has {len(files)} images that can be read: learning takes two or more")

    kept = {file.path for file in files}
    skipped = tuple(file.path for file in found if file.path not in kept)
    if skipped:
        _say(f"{name}: skipped {len(skipped)} of {len(found)} images, which cannot be read")
    labels = torch.tensor([file.label for file in files]) if classes else None
    if not streamed:
        return ResidentImages(name, pixels.to(device), classes, labels, skipped)
    if workers is None:
        workers = max(_cores() - 1, 1)
    return StreamedImages(name, [file.path for file in files], size, classes, labels, device, workers, skipped)


def _readable(files: list[_File], problems: list[str | None]) -> list[_File]:
    """The files without a problem; each of the others is named."""
    for file, problem in zip(files, problems, strict=True):
        if problem is not None:
            _say_unreadable(file.path, problem)
    return [file for file, problem in zip(files, problems, strict=True) if problem is None]


def _common_size(name: str, sides: dict[str, int | str], size: int | None) -> int:
    """``size``, or the shorter side that all images have; ``sides`` are shorter sides, or why there is none."""
    known = {path: side for path, side in sides.items() if isinstance(side, int)}
    if not known:
        raise UserError(f"none of the {len(sides)} images in {name} can be read")
    smallest, largest = min(known, key=known.__getitem__), max(known.values())
    if size is None and known[smallest] != largest:
        raise UserError(
            f"image_size is needed: the images in {name} have shorter sides from {known[smallest]} to {largest} pixels"
        )
    if size is not None and size > known[smallest]:
        number = sum(side < size for side in known.values())
        raise UserError(
            f"image_size {size} is larger than {number} images in {name}, {smallest} among them with {known[smallest]} "
            f"pixels: take {known[smallest]} or less, or remove them"
        )
    return known[smallest] if size is None else size


def _free_bytes(device: torch.device) -> int:
    """Memory that can be had for images on the device; they pass through the host's."""
    with open("/proc/meminfo") as file:
        kilobytes = dict(line.split(":") for line in file)["MemAvailable"].split()[0]
    host = 1024 * int(kilobytes)
    return min(host, torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else host


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _in_threads(work: Callable[[int], T], count: int, description: str) -> list[T]:
    """``work(i)`` for every i, on a thread per core (Pillow decodes without Python's lock), with a progress bar."""
    chunks = [range(begin, min(begin + _CHUNK, count)) for begin in range(0, count, _CHUNK)]
    results: list[T] = []
    pool = ThreadPoolExecutor(_cores())
    try:
        # disable=None: no bar where stderr is a file
        with tqdm(total=count, desc=description, unit="image", disable=None, leave=False) as bar:
            for part in pool.map(lambda chunk: [work(i) for i in chunk], chunks):
                results += part
                bar.update(len(part))
    finally:
        pool.shutdown(cancel_futures=True)
    return results


def _say(line: str) -> None:
    tqdm.write(line, file=sys.stderr)


def _say_unreadable(path: str, problem: str) -> None:
    _say(f"skipped {path}, which cannot be read: {problem}")


# ------------------------------------------------------------------------ folders


def _find(folder: Path, split: Split) -> tuple[Path, tuple[str, ...]]:
    """Where the split's images lie, and the classes of all splits together, so that labels mean the same in each."""
    if not folder.is_dir():
        raise UserError(f"no folder {folder}" + (": it is a file" if folder.exists() else ""))
    names = {entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")}
    tests = [name for name in ("test", "val") if name in names]
    # A class may be called train: it is a split only beside a test split, or alone.
    if "train" not in names or (not tests and len(names) > 1):
        if split == "test":
            raise UserError(
                f"{folder} has no test images: they would lie in {folder / 'test'}, beside {folder / 'train'}"
            )
        return folder, _classes(folder)
    if split == "test" and not tests:
        raise UserError(f"{folder} has no test images: there is no {folder / 'test'} and no {folder / 'val'}")
    directory = folder / (tests[0] if split == "test" else "train")
    if not _classes(directory):
        return directory, ()
    return directory, tuple(sorted({name for part in ("train", *tests) for name in _classes(folder / part)}))


def _classes(directory: Path) -> tuple[str, ...]:
    """Names of the visible subfolders that hold an image at any depth, sorted."""
    with os.scandir(directory) as entries:
        folders = [entry for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    return tuple(sorted(entry.name for entry in folders if next(_images_below(entry.path), None) is not None))


def _files(directory: Path, classes: tuple[str, ...]) -> list[_File]:
    loose = [_File(path, -1) for path in _images_below(str(directory), nested=False)]
    if not classes:
        return loose
    if loose:
        raise UserError(f"{directory} holds both images and folders of images: {loose[0].path} belongs to no class")
    return [
        _File(path, label)
        for label, name in enumerate(classes)
        for path in _images_below(os.path.join(directory, name))
    ]


def _images_below(directory: str, *, nested: bool = True) -> Iterator[str]:
    """Paths of the visible images, sorted folder by folder, so that their order is the same on every machine.

    A link to a folder is followed, unless it leads back to one that it lies in.
    """

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # a class that only the other split has
            raise UserError(f"cannot read {error.filename}: {error.strerror}")

    for base, folders, names in os.walk(directory, followlinks=True, onerror=refuse):
        above = f"{os.path.realpath(base)}{os.sep}"
        inner = [name for name in folders if not name.startswith(".")] if nested else []
        folders[:] = sorted(
            name for name in inner if not above.startswith(f"{os.path.realpath(os.path.join(base, name))}{os.sep}")
        )
        for name in sorted(names):
            if not name.startswith(".") and name.lower().endswith(_SUFFIXES):
                yield os.path.join(base, name)


# ----------------------------------------------------------------------- decoding


def _shorter_side(path: str) -> int | str:
    """Pixels of an image's shorter side, from its header alone; or why it cannot be read."""
    try:
        with Image.open(path, formats=_FORMATS) as image:
            return min(image.size)
    except Exception as error:  # see _decode
        return one_line(error)


def _decode(path: str, size: int, target: npt.NDArray[np.uint8]) -> str | None:
    """Writes an image's centred square into ``target``, ``(3, S, S)``; returns why not, if it cannot be read."""
    try:
        with Image.open(path, formats=_FORMATS) as image:
            image.draft(None, (size, size))  # a large JPEG is decoded at a half, a quarter or an eighth, never below S
            ImageOps.exif_transpose(image, in_place=True)
            rgb = _to_rgb(image)
    except MemoryError:
        raise
    except (
        Exception
    ) as error:  # Pillow's decoders raise nearly anything on a broken file: SyntaxError, struct.error ...
        return one_line(error)
    side = min(rgb.size)
    if max(rgb.size) > side:
        left, top = (rgb.width - side) // 2, (rgb.height - side) // 2
        rgb = rgb.crop((left, top, left + side, top + side))
    if side != size:
        rgb = rgb.resize((size, size), Image.Resampling.BILINEAR)
    target[:] = np.asarray(rgb).transpose(2, 0, 1)
    return None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, of which none is known to be white")
    if image.mode.startswith("I"):
        grey = (np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        visible = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), visible).convert("RGB")
    return image.convert("RGB")


# ------------------------------------------------------------------------- digits


def _digits(split: Split, size: int, device: torch.device) -> ResidentImages:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UserError('the digits need scikit-learn: pip install -e ".[vision]"') from None
    if size < 8:
        raise UserError(f"the digits are 8×8 pixels and are not scaled down: size must be at least 8, got {size}")
    bunch = load_digits()
    grey = torch.tensor(bunch.images, dtype=torch.float32)[:, None] * (255 / 16)
    labels = torch.tensor(bunch.target, dtype=torch.int64)
    # Of each class the fifth, tenth, ... image. They come in an order that every fifth of all would sort by class.
    nth = F.one_hot(labels).cumsum(0).gather(1, labels[:, None])[:, 0]
    chosen = (nth % 5 == 0) == (split == "test")
    scaled = F.interpolate(grey[chosen], size=(size, size), mode="bilinear").round().to(torch.uint8)
    images = scaled.expand(-1, 3, -1, -1).contiguous().to(device)
    return ResidentImages("digits", images, tuple("0123456789"), labels[chosen])


# ------------------------------------------------------------------------ subsets


def balanced_subset(labels: Tensor, fraction: float, seed: int) -> Tensor:
    """Positions of a fixed, class-balanced part of a labelled set, ascending, on the labels' device.

    Every class that occurs gives the same number of images, chosen at random: fraction · N / classes, rounded (a half
    upwards), at least one; a class with fewer gives all it has. So 1 % of 50,000 images in 10 classes is 500 images, 50
    of each. With the same seed a smaller part lies in every larger one.

    Args:
        labels: ``(N,)`` integers.
        fraction: in (0, 1].
        seed: which of the possible parts.

    Raises:
        UserError: a fraction out of range, or no labels.
    """
    if not 0 < fraction <= 1:
        raise UserError(f"fraction must be above 0 and at most 1, got {fraction}")
    if labels.ndim != 1 or not len(labels):
        raise UserError(f"labels must be (N,) with N at least 1, got {tuple(labels.shape)}")
    classes = labels.cpu().unique()
    share = max(1, int(fraction * len(labels) / len(classes) + 0.5))
    order = epoch_order(len(labels), seed, 0)
    shuffled = labels.cpu()[order]
    chosen = torch.cat([order[shuffled == label][:share] for label in classes])
    return chosen.sort().values.to(labels.device)
