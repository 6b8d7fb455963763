"""Cut-outs: pictures of single objects with transparency around them, by class, from which scenes are made."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from curl_rl.runs.console import say
from curl_rl.runs.errors import UserError, one_line
from curl_rl.runs.files import open_regular
from curl_rl.runs.settings import nearest
from curl_rl.vision.data import DIGITS, load
from curl_rl.vision.data.decoding import FORMATS
from curl_rl.vision.data.listing import folders_in, images_below

Part = Literal["train", "validation", "test"]

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


def read_cutouts(source: str, classes: Sequence[str], part: Part) -> Cutouts:
    """Reads the cut-outs of some classes.

    Args:
        source: a folder with one subfolder per class, whose images, at any depth, have a transparent background; or
            ``digits``, scikit-learn's handwritten digits, whose strokes are the objects.
        classes: their names, in the order of the labels.
        part: of every five pictures of a folder three are for training, one for validation and one for testing.

    Raises:
        UserError: a class is not there or has fewer than five usable pictures, or the digits lack scikit-learn.
    """
    present = tuple("0123456789") if source == DIGITS else tuple(folders_in(_folder(source)))
    for name in classes:
        if name not in present:
            raise UserError(
                f"{source} has no class {name}: it has {', '.join(present) or 'none'}{nearest(name, [*present])}"
            )
    if source == DIGITS:
        return _digits(tuple(classes), part)
    found, bad = [], []
    for name in classes:
        pictures = []
        for path in images_below(os.path.join(source, name)):
            answer = _cutout(path)
            if isinstance(answer, str):
                bad.append(f"{path}: {answer}")
            else:
                pictures.append(answer)
        if len(pictures) < _FIFTH:
            raise UserError(
                f"{os.path.join(source, name)} has {len(pictures)} pictures with a transparent background, and a class "
                f"needs at least {_FIFTH}, some of them for testing: add some, or leave the class out"
                + (f" ({bad[-1]})" if bad else "")
            )
        found.append(tuple(picture for index, picture in enumerate(pictures) if _part(index) == part))
    if bad and part == "train":
        say(f"{source}: {len(bad)} pictures are left out, such as {bad[0]}")
    return Cutouts(source, tuple(classes), tuple(found), drawings=False)


def _folder(source: str) -> str:
    if not os.path.isdir(source):
        raise UserError(f"data must be a folder of cut-outs or {DIGITS}, got {source}: no such folder")
    return source


def _cutout(path: str) -> Image.Image | str:
    """The picture, cropped to what is visible; or the reason why it is none."""
    try:
        with open_regular(Path(path)) as file, Image.open(file, formats=FORMATS) as image:
            whole = image.convert("RGBA")
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises almost anything on a broken file
        return one_line(error)
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


def _digits(classes: tuple[str, ...], part: Part) -> Cutouts:
    images = load(DIGITS, "test" if part == "test" else "train", size=_DIGIT)
    batch = next(images.batches(len(images), shuffle=False, drop_last=False))
    assert batch.labels is not None
    found: list[list[Image.Image]] = [[] for _ in classes]
    for index, (stroke, label) in enumerate(zip(batch.images[:, 0].numpy(), batch.labels.tolist(), strict=True)):
        name = images.classes[label]
        if name in classes and (part == "test" or part == _part(index)):
            white = np.full_like(stroke, 255)
            whole = Image.fromarray(np.stack([white, white, white, stroke], -1))
            visible = stroke >= 255 * _ALPHA_OF_OBJECT
            rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
            box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
            found[classes.index(name)].append(whole.crop(box))
    return Cutouts(DIGITS, classes, tuple(map(tuple, found)), drawings=True)


def _part(index: int) -> Part:
    """Every fifth picture is for testing, the one before it for fitting energies. The digits have a test part."""
    return {_FIFTH - 1: "test", _FIFTH - 2: "validation"}.get(index % _FIFTH, "train")  # type: ignore[return-value]
