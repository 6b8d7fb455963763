"""Detecting in pictures of any size, for people to look at."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from curl_rl.ranges import within
from curl_rl.runs.console import printable
from curl_rl.runs.errors import UserError
from curl_rl.runs.files import write_durably
from curl_rl.vision.data.decoding import open_picture, shorter_side
from curl_rl.vision.detection.detector import SIDE, Detections
from curl_rl.vision.detection.detector_file import TrainedDetector
from curl_rl.vision.detection.pictures import draw_detections

_SHORTEST = 32  # pixels that the shorter side is scaled to at least
_DRAWN = 480  # pixels that the longer side of a drawing has at least


def check_picture(path: Path) -> None:
    """Refuses what is no picture by its first bytes; reads no pixels.

    Raises:
        UserError: it cannot be read.
    """
    if isinstance(problem := shorter_side(str(path)), str):
        raise UserError(f"cannot read {path}: {problem}")


def read_picture(path: Path) -> Image.Image:
    """Reads a picture as RGB, upright.

    Raises:
        UserError: it cannot be read.
    """
    found = open_picture(str(path))
    if isinstance(found, str):
        raise UserError(f"cannot read {path}: {found}")
    return found


def detect_in(
    trained: TrainedDetector, picture: Image.Image, *, size: int | None = None, score: float = 0.5
) -> tuple[Image.Image, list[str]]:
    """Detects objects in a picture.

    Args:
        trained: the detector.
        picture: RGB.
        size: longer side that it is scaled to, in pixels; None: that of the scenes the detector has learned from, in
            which objects take up a quarter to half of the side.
        score: least probability.

    Returns:
        The picture with boxes, enlarged if it is small, and a few words on each detection, the most certain first.

    Raises:
        ValueError: an argument is out of range.
    """
    size = trained.size if size is None else size
    SIDE.check("size", size)
    within("[0, 1)").check("score", score)
    detector = trained.detector
    scale = size / max(picture.size)
    sides = tuple(max(_SHORTEST, round(side * scale)) for side in picture.size)
    pixels = np.asarray(picture.resize((sides[0], sides[1]), Image.Resampling.BILINEAR))
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].to(next(detector.parameters()).device)
    (found,) = detector.decide(detector.see(image, len(trained.classes)), trained.test)
    certain = found.scores >= score
    found = Detections(*(part[certain].cpu() for part in found))
    back = torch.tensor([picture.width / sides[0], picture.height / sides[1]]).repeat(2)
    found = found._replace(boxes=found.boxes * back)
    names = (*trained.classes, *["unknown"] * (detector.head.unknown + 1 - len(trained.classes)))
    lines = [
        f"{printable(names[label])} {value:.0%}"
        for label, value in zip(found.labels.tolist(), found.scores.tolist(), strict=True)
    ]
    enlarged = max(1.0, _DRAWN / max(picture.size))
    return draw_detections(picture, found, trained.classes, scale=enlarged), lines


def write_picture(picture: Image.Image, path: Path) -> None:
    """Writes a picture as PNG, atomically."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    write_durably(path, [buffer.getvalue()])
