"""Loads a folder of images, or a built-in set.

A folder holds ``<class>/*.jpg``, at any depth below the class, or unlabeled images directly; or it holds one such
folder in each of ``train`` and ``test`` (or ``val``; see :mod:`~curl_rl.vision.data.splits`). What was taken for what,
and what was left out, is reported on stderr. An image that cannot be decoded is reported once, skipped and counted.
"""

from __future__ import annotations

import json
import os
import stat
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from curl_rl.installation import installation_of
from curl_rl.pretraining.distributed import is_first, share_of_machine
from curl_rl.recordings.store import is_recording
from curl_rl.runs.console import counted, printable, say
from curl_rl.runs.errors import UserError
from curl_rl.vision.data.decoding import SUFFIXES, decode, say_unreadable, shorter_side
from curl_rl.vision.data.image_sets import (
    ImageSet,
    ResidentImages,
    SmallImages,
    Split,
    Storage,
    StreamedImages,
    epoch_order,
    lies_in_memory,
)
from curl_rl.vision.data.listing import LeftOut, images_below
from curl_rl.vision.data.splits import Part, Splits, few, find_splits, refuse_splits_in_classes

DIGITS = "digits"
"""Name of the built-in set; ``./digits`` means a folder of that name."""
_CHUNK = 64  # images per task of a reading thread
_MOST_NAMED = 20  # unreadable images that are reported one by one
_SAMPLE = 64  # images that are looked at for anything to see
_LEAST_SPREAD = 8.0  # of 255; values of 12 bits in files of 16 end at 15: a standard deviation of at most 7.5

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
    small_images: SmallImages = "auto",
) -> ImageSet:
    """Loads the images of a folder, or the built-in set ``digits``.

    Args:
        source: a folder as described at the top of this file, or ``digits``: scikit-learn's 1,797 handwritten digits of
            8×8 pixels (``./digits`` for a folder of that name).
        split: train: the folder's ``train``, or the folder itself if it has no splits. test: its ``test`` or ``val``,
            under these and other names: see :mod:`~curl_rl.vision.data.splits`. Every fifth image of each class of the
            digits is for testing.
        size: side S of the loaded images. The largest centered square of an image is scaled down to S×S (bilinear,
            antialiased), and views never show anything outside it: for random resized crops choose S larger than the
            crops, such as 256 for 224. None: no scaling; all images must have the same shorter side. Digits are scaled
            up.
        device: device of the batches.
        storage: memory: one tensor on the device. stream: decode the images in every epoch. auto: memory, if the set
            takes at most a quarter of the free memory. The digits are always in memory.
        workers: decoding processes when streaming; None: one per core, less one for training.
        small_images: images smaller than ``size`` are scaled up, as torchvision's crops do, skipped, or refused. auto:
            scaled up, if they are fewer than half of the images; otherwise ``size`` must be a mistake, and is refused.

    Raises:
        UserError: the folder or the split does not exist or cannot be read, its layout is ambiguous (see
            :mod:`~curl_rl.vision.data.splits`), the folder holds recorded frames (see
            :mod:`~curl_rl.vision.data.recorded`) or fewer than two readable images, an image is smaller than ``size``
            and such images are refused, images differ in size and ``size`` is None, the images do not fit into memory,
            or digits are requested without scikit-learn.
    """
    if split not in ("train", "test"):
        raise UserError(f"split must be train or test, got {split!r}")
    if storage not in ("auto", "memory", "stream"):
        raise UserError(f"storage must be auto, memory or stream, got {storage!r}")
    if size is not None and size < 1:
        raise UserError(f"size must be at least 1, got {size}")
    if small_images not in ("auto", "upscale", "skip", "refuse"):
        raise UserError(f"small_images must be auto, upscale, skip or refuse, got {small_images!r}")
    if workers is not None and workers < 0:
        raise UserError(f"workers must be 0 or more, got {workers}")
    if is_recording(source):
        raise UserError(f"{source} holds recorded frames, which have no classes: only pretraining takes them")
    if source == DIGITS:
        return _digits(split, size or 8, torch.device(device))
    folder = str(Path(source))
    splits = _splits(folder)
    if split == "train":
        part, left_out = splits.train, splits.left_out
        _warn_about_twins(folder, part.classes)
    else:
        part, left_out = _test_part(folder, splits), LeftOut()
    images = _load_folder(part, left_out, size, torch.device(device), storage, workers, small_images)
    images.layout = splits.found if split == "train" else ""
    return images


def _splits(folder: str) -> Splits:
    try:
        if not stat.S_ISDIR(os.stat(folder).st_mode):
            raise UserError(f"no folder {folder}: it is a file")
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"no folder {folder}") from None
    except OSError as error:
        raise UserError(f"cannot read {folder}: {error.strerror}") from None
    return find_splits(folder)


def _test_part(folder: str, splits: Splits) -> Part:
    if splits.test is not None:
        return splits.test
    train, test = os.path.join(folder, "train"), os.path.join(folder, "test")
    if splits.train.folder == folder:
        raise UserError(f"{folder} has no test images: put them into {test}, next to {train}")
    raise UserError(f"{folder} has no test images: neither {test} nor {os.path.join(folder, 'val')} exists")


class _File(NamedTuple):
    path: str
    label: int  # −1 if the images have no classes


def _load_folder(
    part: Part,
    left_out: LeftOut,
    size: int | None,
    device: torch.device,
    storage: Storage,
    workers: int | None,
    small_images: SmallImages,
) -> ImageSet:
    name = printable(part.folder)
    found = _files(part, left_out)
    _say_left_out(name, left_out)
    if not found:
        raise UserError(f"{name} holds no images: no file ends in {', '.join(SUFFIXES)}")
    # Headers first, so that mismatched sizes are refused here and not in the middle of an epoch.
    headers = _in_threads(lambda i: shorter_side(found[i].path), len(found), f"scanning {name}")
    readable = _readable(found, [header if isinstance(header, str) else None for header in headers])
    if not readable:
        raise UserError(f"none of the {len(found)} images in {name} can be read: {found[0].path}: {headers[0]}")
    sides = {file.path: header for file, header in zip(found, headers, strict=True) if isinstance(header, int)}
    size = _common_size(name, sides) if size is None else size
    usable = _large_enough(name, readable, sides, size, small_images)

    what = f"{len(usable)} images of {size}×{size}"
    streamed = not lies_in_memory(storage, len(usable) * 3 * size * size, device, what, ", or a smaller image_size")
    files, pixels = usable, torch.empty(0)
    if not streamed:
        pixels, problems = _decoded(name, usable, size)
        files = _readable(usable, problems)
    if len(files) < 2:
        raise UserError(f"{name} has {counted(len(files), 'readable image')}: training needs at least two")
    unreadable = len(found) - len(readable) + len(usable) - len(files)
    if unreadable:
        _say(f"{name}: skipped {unreadable} of {counted(len(found), 'image')}, which cannot be read")
    if is_first():
        evenly = slice(None, None, -(-len(files) // _SAMPLE))
        _warn_if_nearly_constant(name, _decoded(name, files[evenly], size)[0] if streamed else pixels[evenly])

    kept = {file.path for file in files}
    skipped = tuple(file.path for file in found if file.path not in kept)
    classes = tuple(map(printable, part.classes))  # files and terminals take no other names
    labels = torch.tensor([file.label for file in files]) if classes else None
    images: ImageSet
    if streamed:
        workers = max(_cores() - 1, 1) if workers is None else workers
        images = StreamedImages(name, [file.path for file in files], size, classes, labels, device, workers, skipped)
    else:
        images = ResidentImages(name, pixels.to(device), classes, labels, skipped)
    images.paths = tuple(file.path for file in files)
    images.identity = sha256(
        json.dumps([part.classes, [(os.path.relpath(path, part.folder), label) for path, label in files]]).encode()
    ).hexdigest()
    return images


def _files(part: Part, left_out: LeftOut) -> list[_File]:
    loose = [_File(path, -1) for path in images_below(part.folder, left_out, nested=False)]
    if not part.classes:
        return loose
    if loose:
        raise UserError(f"{part.folder} holds both images and folders of images: {loose[0].path} belongs to no class")
    files = [
        _File(path, label)
        for label, name in enumerate(part.classes)
        for path in images_below(os.path.join(part.folder, name), left_out)
    ]
    refuse_splits_in_classes(part.folder, (file.path for file in files))
    return files


def _decoded(name: str, files: list[_File], size: int) -> tuple[Tensor, list[str | None]]:
    """Decodes files: ``(N, 3, S, S)`` uint8, the images that can be read, and what is wrong with each file, or None."""
    pixels = torch.empty((len(files), 3, size, size), dtype=torch.uint8)
    rows = pixels.numpy()
    problems = _in_threads(lambda i: decode(files[i].path, size, rows[i]), len(files), f"reading {name}")
    if any(problems):
        pixels = pixels[[i for i, problem in enumerate(problems) if problem is None]]
    return pixels, problems


def _readable(files: list[_File], problems: list[str | None]) -> list[_File]:
    """Returns the files without a problem and reports the others."""
    broken = [(file.path, problem) for file, problem in zip(files, problems, strict=True) if problem is not None]
    if is_first():  # every process reads all files
        for path, problem in broken[:_MOST_NAMED]:
            say_unreadable(path, problem)
        if len(broken) > _MOST_NAMED:
            say(f"and {len(broken) - _MOST_NAMED:,} more")
    return [file for file, problem in zip(files, problems, strict=True) if problem is None]


def _common_size(name: str, sides: dict[str, int]) -> int:
    """Returns the images' common shorter side; ``sides`` maps paths to shorter sides."""
    smallest, largest = min(sides.values()), max(sides.values())
    if smallest != largest:
        raise UserError(
            f"image_size is needed: the images in {name} have shorter sides from {smallest} to {largest} pixels"
        )
    return smallest


def _large_enough(
    name: str, files: list[_File], sides: dict[str, int], size: int, small_images: SmallImages
) -> list[_File]:
    """Returns the files to load, after reporting or refusing those smaller than ``size``."""
    small = dict.fromkeys(file.path for file in files if sides[file.path] < size)  # a set in the order of the files
    if not small:
        return files
    smallest = min(small, key=sides.__getitem__)
    example = f"such as {smallest} with {sides[smallest]} pixels"
    if small_images == "refuse" or (small_images == "auto" and 2 * len(small) >= len(files)):
        raise UserError(
            f"image_size {size} is larger than {counted(len(small), 'image')} in {name}, {example}: set it to "
            f"{sides[smallest]} or less, remove them, or set small_images to upscale or skip"
        )
    action = "skipped" if small_images == "skip" else "scaled up"
    _say(f"{name}: {action} {len(small)} of {len(files)} images, which are smaller than image_size {size}, {example}")
    return [file for file in files if file.path not in small] if small_images == "skip" else files


# ----------------------------------------------------------------------- reports


def _say(line: str) -> None:
    if is_first():
        say(line)


def _say_left_out(name: str, left_out: LeftOut) -> None:
    if left_out.runs:
        _say(f"{name}: left out run directories, whose pictures are no data: {few(left_out.runs)}")
    if left_out.suffixes:
        counts = few(f"{count:,} {suffix or 'without a suffix'}" for suffix, count in left_out.suffixes.most_common())
        _say(f"{name}: passed over files that are not read as images: {counts}")


def _warn_about_twins(name: str, classes: tuple[str, ...]) -> None:
    """Warns about classes that are one on other systems, which ignore case and how an accent is encoded."""
    alike: dict[str, list[str]] = {}
    for one in classes:
        alike.setdefault(unicodedata.normalize("NFC", one).casefold(), []).append(one)
    twins = [" and ".join(names) for names in alike.values() if len(names) > 1]
    if twins:
        _say(f"{name}: classes of almost the same name are counted as different ones: {few(twins)}")


def _warn_if_nearly_constant(name: str, sample: Tensor) -> None:
    """Warns if there is nothing to see in any of some images, ``(N, 3, S, S)`` uint8."""
    spread = max((float(image.float().std((1, 2), correction=0).max()) for image in sample), default=_LEAST_SPREAD)
    if spread < _LEAST_SPREAD:
        mean = float(sample.float().mean())
        say(
            f"{name}: the images are nearly constant, around {mean:.0f} of 255 with a standard deviation of at most "
            f"{spread:.1f}. Files of 16 bits whose values end far below 65,535 come out black: scale them to that range"
        )


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


# ------------------------------------------------------------------------- digits


def _digits(split: Split, size: int, device: torch.device) -> ResidentImages:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UserError(f"the digits need scikit-learn: {installation_of('vision')}") from None
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
