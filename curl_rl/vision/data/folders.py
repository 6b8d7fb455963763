"""Loads a folder of images, or a built-in set.

A folder holds ``<class>/*.jpg``, at any depth below the class, or unlabeled images directly; or it holds one such
folder in each of ``train`` and ``test`` (or ``val``). Hidden files and other suffixes are ignored. An image that cannot
be decoded is reported once on stderr, skipped and counted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from curl_rl.pretraining.distributed import is_first, share_of_machine
from curl_rl.recordings.store import is_recording
from curl_rl.runs.console import say
from curl_rl.runs.errors import UserError
from curl_rl.vision.data.decoding import SUFFIXES, decode, say_unreadable, shorter_side
from curl_rl.vision.data.image_sets import (
    ImageSet,
    ResidentImages,
    Split,
    Storage,
    StreamedImages,
    epoch_order,
    lies_in_memory,
)

DIGITS = "digits"
"""Name of the built-in set; ``./digits`` means a folder of that name."""
_CHUNK = 64  # images per task of a reading thread

T = TypeVar("T")


def whole_path(source: str) -> str:
    """The absolute path of a folder, which means the same in every directory; the name of a built-in set stays."""
    return source if source == DIGITS else str(Path(os.path.expanduser(source)).absolute())


def warn_about_unseen_classes(train: ImageSet, test: ImageSet) -> None:
    """Warns about test images whose class has no training images, such as those in a misspelled folder."""
    seen = set(train.required_labels().unique().tolist())
    labels = test.required_labels()
    unseen = [label for label in labels.unique().tolist() if label not in seen]
    if unseen:
        names = ", ".join(test.classes[label] for label in unseen[:5]) + (", ..." if len(unseen) > 5 else "")
        count = int(sum((labels == label).sum() for label in unseen))
        say(f"{train.name} has no image of {names}: {count:,} of {len(labels):,} test images must count as wrong")


def load(
    source: str | Path,
    split: Split = "train",
    size: int | None = None,
    *,
    device: torch.device | str = "cpu",
    storage: Storage = "auto",
    workers: int | None = None,
) -> ImageSet:
    """Loads the images of a folder, or the built-in set ``digits``.

    Args:
        source: a folder as described at the top of this file, or ``digits``: scikit-learn's 1,797 handwritten digits of
            8×8 pixels (``./digits`` for a folder of that name).
        split: train: the folder's ``train``, or the folder itself if it has no splits. test: its ``test`` or ``val``.
            Every fifth image of each class of the digits is for testing.
        size: side S of the loaded images. The largest centered square of an image is scaled down to S×S (bilinear,
            antialiased), and views never show anything outside it: for random resized crops choose S larger than the
            crops, such as 256 for 224. None: no scaling; all images must have the same shorter side. Digits are scaled
            up.
        device: device of the batches.
        storage: memory: one tensor on the device. stream: decode the images in every epoch. auto: memory, if the set
            takes at most a quarter of the free memory. The digits are always in memory.
        workers: decoding processes when streaming; None: one per core, less one for training.

    Raises:
        UserError: the folder or the split does not exist, the folder holds recorded frames (see
            :mod:`~curl_rl.vision.data.recorded`) or fewer than two readable images, an image is smaller than ``size``,
            images differ in size and ``size`` is None, the images do not fit into memory, or digits are requested
            without scikit-learn.
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
    label: int  # −1 if the images have no classes


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
        raise UserError(f"{name} holds no images: no file ends in {', '.join(SUFFIXES)}")
    # Headers first, so that mismatched sizes are refused here and not in the middle of an epoch.
    sides = _in_threads(lambda i: shorter_side(found[i].path), len(found), f"scanning {name}")
    files = _readable(found, [side if isinstance(side, str) else None for side in sides])
    size = _common_size(name, {file.path: side for file, side in zip(found, sides, strict=True)}, size)

    what = f"{len(files)} images of {size}×{size}"
    streamed = not lies_in_memory(storage, len(files) * 3 * size * size, device, what, ", or a smaller image_size")
    if not streamed:
        pixels = torch.empty((len(files), 3, size, size), dtype=torch.uint8)
        rows, side = pixels.numpy(), size
        problems = _in_threads(lambda i: decode(files[i].path, side, rows[i]), len(files), f"reading {name}")
        pixels = pixels[[i for i, problem in enumerate(problems) if problem is None]] if any(problems) else pixels
        files = _readable(files, problems)
    if len(files) < 2:
        raise UserError(f"{name} has {len(files)} readable images: training needs at least two")

    kept = {file.path for file in files}
    skipped = tuple(file.path for file in found if file.path not in kept)
    if skipped and is_first():
        say(f"{name}: skipped {len(skipped)} of {len(found)} images, which cannot be read")
    labels = torch.tensor([file.label for file in files]) if classes else None
    images: ImageSet
    if streamed:
        workers = max(_cores() - 1, 1) if workers is None else workers
        images = StreamedImages(name, [file.path for file in files], size, classes, labels, device, workers, skipped)
    else:
        images = ResidentImages(name, pixels.to(device), classes, labels, skipped)
    images.identity = sha256(
        json.dumps([classes, [(os.path.relpath(path, directory), label) for path, label in files]]).encode()
    ).hexdigest()
    return images


def _readable(files: list[_File], problems: list[str | None]) -> list[_File]:
    """Returns the files without a problem and reports the others."""
    for file, problem in zip(files, problems, strict=True):
        if problem is not None and is_first():  # every process reads all files
            say_unreadable(file.path, problem)
    return [file for file, problem in zip(files, problems, strict=True) if problem is None]


def _common_size(name: str, sides: dict[str, int | str], size: int | None) -> int:
    """Returns ``size`` or the images' common shorter side; ``sides`` maps paths to shorter sides or to errors."""
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
            f"image_size {size} is larger than {number} images in {name}, such as {smallest} with {known[smallest]} "
            f"pixels: set it to {known[smallest]} or less, or remove them"
        )
    return known[smallest] if size is None else size


def _cores() -> int:
    return share_of_machine(len(os.sched_getaffinity(0)))


def _in_threads(work: Callable[[int], T], count: int, description: str) -> list[T]:
    """Runs ``work(i)`` for every i on one thread per core (Pillow releases the GIL), with a progress bar."""
    chunks = [range(begin, min(begin + _CHUNK, count)) for begin in range(0, count, _CHUNK)]
    results: list[T] = []
    pool = ThreadPoolExecutor(_cores())
    try:
        hidden = None if is_first() else True  # None: no bar where stderr is a file
        with tqdm(total=count, desc=description, unit="image", disable=hidden, leave=False) as bar:
            for part in pool.map(lambda chunk: [work(i) for i in chunk], chunks):
                results += part
                bar.update(len(part))
    finally:
        pool.shutdown(cancel_futures=True)
    return results


# ------------------------------------------------------------------------ folders


def _find(folder: Path, split: Split) -> tuple[Path, tuple[str, ...]]:
    """Returns the split's directory and the classes of all splits, so that labels mean the same in each."""
    if not folder.is_dir():
        raise UserError(f"no folder {folder}" + (": it is a file" if folder.exists() else ""))
    names = {entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")}
    tests = [name for name in ("test", "val") if name in names]
    # A class may be named train: it is a split only next to a test split, or alone.
    if "train" not in names or (not tests and len(names) > 1):
        if split == "test":
            raise UserError(f"{folder} has no test images: put them into {folder / 'test'}, next to {folder / 'train'}")
        return folder, _classes(folder)
    if split == "test" and not tests:
        raise UserError(f"{folder} has no test images: neither {folder / 'test'} nor {folder / 'val'} exists")
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
    """Yields the paths of visible images, sorted folder by folder, so that their order is the same on every machine.

    Follows links to folders, except those to a folder that contains the link.
    """

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # a class present only in the other split
            raise UserError(f"cannot read {error.filename}: {error.strerror}")

    for base, folders, names in os.walk(directory, followlinks=True, onerror=refuse):
        above = f"{os.path.realpath(base)}{os.sep}"
        inner = [name for name in folders if not name.startswith(".")] if nested else []
        folders[:] = sorted(
            name for name in inner if not above.startswith(f"{os.path.realpath(os.path.join(base, name))}{os.sep}")
        )
        for name in sorted(names):
            if not name.startswith(".") and name.lower().endswith(SUFFIXES):
                yield os.path.join(base, name)


# ------------------------------------------------------------------------- digits


def _digits(split: Split, size: int, device: torch.device) -> ResidentImages:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UserError('the digits need scikit-learn: pip install -e ".[vision]"') from None
    if size < 8:
        raise UserError(f"the digits are 8×8 pixels and are not scaled down: size must be at least 8, got {size}")
    bunch = load_digits()
    gray = torch.tensor(bunch.images, dtype=torch.float32)[:, None] * (255 / 16)
    labels = torch.tensor(bunch.target, dtype=torch.int64)
    # The fifth, tenth, ... image of each class: every fifth image of the whole set would not balance the classes.
    nth = F.one_hot(labels).cumsum(0).gather(1, labels[:, None])[:, 0]
    chosen = (nth % 5 == 0) == (split == "test")
    scaled = F.interpolate(gray[chosen], size=(size, size), mode="bilinear").round().to(torch.uint8)
    images = scaled.expand(-1, 3, -1, -1).contiguous().to(device)
    return ResidentImages("digits", images, tuple("0123456789"), labels[chosen])


# ------------------------------------------------------------------------ subsets


def balanced_subset(labels: Tensor, fraction: float, seed: int) -> Tensor:
    """Positions of a reproducible, class-balanced subset of a labeled set, ascending, on the labels' device.

    Every class that occurs contributes the same number of randomly chosen images: fraction · N / classes, rounded half
    up, at least one; a class with fewer contributes all of its images. So 1 % of 50,000 images in 10 classes is 500
    images, 50 per class. A fraction of 1 takes all images, however unequal the classes are. With the same seed, smaller
    subsets are contained in larger ones.

    Args:
        labels: ``(N,)`` integers.
        fraction: in (0, 1]; 1 is the whole set.
        seed: selects one of the possible subsets.

    Raises:
        UserError: the fraction is out of range, or there are no labels.
    """
    if not 0 < fraction <= 1:
        raise UserError(f"fraction must be above 0 and at most 1, got {fraction}")
    if labels.ndim != 1 or not len(labels):
        raise UserError(f"labels must be (N,) with N at least 1, got {tuple(labels.shape)}")
    if fraction == 1:
        return torch.arange(len(labels), device=labels.device)
    classes = labels.cpu().unique()
    share = max(1, int(fraction * len(labels) / len(classes) + 0.5))
    order = epoch_order(len(labels), seed, 0)
    shuffled = labels.cpu()[order]
    chosen = torch.cat([order[shuffled == label][:share] for label in classes])
    return chosen.sort().values.to(labels.device)
