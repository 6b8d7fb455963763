"""Cut-outs: pictures of single objects with transparency around them, by class, from which scenes are made."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from curl_rl.runs.console import say
from curl_rl.runs.errors import UserError
from curl_rl.runs.files import open_regular
from curl_rl.runs.settings import nearest
from curl_rl.vision.data import DIGITS, load
from curl_rl.vision.data.decoding import FORMATS, reason
from curl_rl.vision.data.listing import folders_in, images_below

Part = Literal["train", "validation", "test"]
"""What cut-outs are for: training, fitting energies, testing."""
PARTS: tuple[Part, ...] = get_args(Part)

_LARGEST = 128
"""Longer side of a cut-out in memory, in pixels: scenes show it smaller."""
_FIFTH = 5
_DIGIT = 32
_ALPHA_OF_OBJECT = 0.5


@dataclass(frozen=True)
class Cutouts:
    """Cut-outs of one part: training, validation or test."""

    name: str
    """Their folder, or digits."""
    classes: tuple[str, ...]
    pictures: tuple[tuple[Image.Image, ...], ...]
    """For each class, RGBA pictures cropped to what is visible."""
    drawings: bool
    """True for pictures of strokes alone, such as digits: they are given a random color, and are not mirrored."""

    @property
    def identity(self) -> str:
        """Fingerprint of the classes and of all pixels."""
        digest = hashlib.sha256()
        for name, pictures in zip(self.classes, self.pictures, strict=True):
            digest.update(name.encode())
            for picture in pictures:
                digest.update(str(picture.size).encode() + picture.tobytes())
        return digest.hexdigest()


def read_cutouts(source: str, classes: Sequence[str]) -> dict[Part, Cutouts]:
    """Reads the cut-outs of some classes, in three parts: of every five pictures, three, one and one.

    Args:
        source: a folder with one subfolder per class, whose images, at any depth, have a transparent background; or
            ``digits``, scikit-learn's handwritten digits, whose strokes are the objects.
        classes: their names, in the order of the labels.

    Raises:
        UserError: a class is not there or has fewer than five usable pictures, or the digits lack scikit-learn.
    """
    present = tuple("0123456789") if source == DIGITS else tuple(folders_in(_folder(source)))
    # A folder from a Mac may spell é as two characters, where an editor writes one.
    folders = {_composed(name): name for name in present} | {name: name for name in present}
    for name in classes:
        if name not in folders and _composed(name) not in folders:
            raise UserError(
                f"{source} has no class {name}: it has {', '.join(present) or 'none'}{nearest(name, [*present])}"
            )
    if source == DIGITS:
        return _digits(tuple(classes))
    found: dict[Part, list[tuple[Image.Image, ...]]] = {part: [] for part in PARTS}
    bad: list[str] = []
    for name in classes:
        pictures, unusable = [], []
        folder = os.path.join(source, folders.get(name, folders.get(_composed(name), name)))
        paths = list(images_below(folder))
        for path in tqdm(paths, desc=f"reading {name}", unit="image", leave=False, disable=None):
            answer = _cutout(path)
            if isinstance(answer, str):
                unusable.append(f"{path}: {answer}")
            else:
                pictures.append(answer)
        if len(pictures) < _FIFTH:
            raise UserError(
                f"{folder} has {len(pictures)} picture{'s' * (len(pictures) != 1)} with a transparent background, and "
                f"a class needs at least {_FIFTH}, some of them for testing: add some, or leave the class out"
                + (f" ({unusable[-1]})" if unusable else "")
            )
        bad += unusable
        for part, some in found.items():
            some.append(tuple(picture for index, picture in enumerate(pictures) if _part(index) == part))
    if bad:
        say(f"{source}: {len(bad)} pictures are left out, such as {bad[0]}")
    return {part: Cutouts(source, tuple(classes), tuple(some), drawings=False) for part, some in found.items()}


def _folder(source: str) -> str:
    if not os.path.isdir(source):
        raise UserError(f"data must be a folder of cut-outs or {DIGITS}, got {source}: no such folder")
    return source


def _composed(name: str) -> str:
    """A name with each accented letter as one character."""
    return unicodedata.normalize("NFC", name)


def _cutout(path: str) -> Image.Image | str:
    """The picture, upright and cropped to what is visible; or the reason why it is none."""
    try:
        with open_regular(Path(path)) as file, Image.open(file, formats=FORMATS) as image:
            if image.format != "TIFF":  # see curl_rl.vision.data.decoding
                ImageOps.exif_transpose(image, in_place=True)
            whole = image.convert("RGBA")
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises almost anything on a broken file
        return reason(error)
    alpha = np.asarray(whole)[..., 3] >= 255 * _ALPHA_OF_OBJECT
    if alpha.all():
        return "nothing of it is transparent"
    if alpha.sum() < 16:
        return "nothing is to be seen"
    rows, columns = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    cropped = whole.crop((int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1))
    if max(cropped.size) > _LARGEST:
        cropped.thumbnail((_LARGEST, _LARGEST), Image.Resampling.BOX)
    return cropped


def _digits(classes: tuple[str, ...]) -> dict[Part, Cutouts]:
    """The digits' own test images are for testing."""
    found: dict[Part, list[list[Image.Image]]] = {part: [[] for _ in classes] for part in PARTS}
    for split in ("train", "test"):
        images = load(DIGITS, split, size=_DIGIT)
        batch = next(images.batches(len(images), shuffle=False, drop_last=False))
        assert batch.labels is not None
        seen: Counter[str] = Counter()  # counted by class: the digits come in turn
        for stroke, label in zip(batch.images[:, 0].numpy(), batch.labels.tolist(), strict=True):
            name = images.classes[label]
            if name not in classes:
                continue
            seen[name] += 1
            part: Part = "test" if split == "test" else "validation" if seen[name] % _FIFTH == 0 else "train"
            white = np.full_like(stroke, 255)
            whole = Image.fromarray(np.stack([white, white, white, stroke], -1))
            visible = stroke >= 255 * _ALPHA_OF_OBJECT
            rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
            box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
            found[part][classes.index(name)].append(whole.crop(box))
    return {part: Cutouts(DIGITS, classes, tuple(map(tuple, some)), drawings=True) for part, some in found.items()}


def _part(index: int) -> Part:
    return {_FIFTH - 1: PARTS[2], _FIFTH - 2: PARTS[1]}.get(index % _FIFTH, PARTS[0])
