"""Pictures of detections: boxes and names drawn on images, and galleries of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from curl_rl.vision.detection.detector import Detections
from curl_rl.vision.detection.evaluation import Shown
from curl_rl.vision.detection.sampling import Truth

KNOWN_COLOR, UNKNOWN_COLOR, TRUTH_COLOR = (0, 158, 115), (230, 97, 0), (255, 255, 255)
"""Green and orange are told apart by the color-blind, too. White is what is there."""
_GAP = 6
_COLUMNS = 4
_GALLERY_SIDE = 240
_GALLERY_SCORE = 0.3


def draw_detections(
    image: Image.Image, found: Detections, names: Sequence[str], truth: Truth | None = None, scale: float = 1.0
) -> Image.Image:
    """A larger copy of the image with boxes: green, with the class; orange, unknown; white, the objects' true boxes.

    Args:
        image: RGB.
        found: detections in pixels of the image.
        names: of the known classes, by label; every other label is unknown.
        truth: ``(1, M)`` objects; None to draw none.
        scale: factor of the copy's size.
    """
    size = (round(image.width * scale), round(image.height * scale))
    copy = image.convert("RGB").resize(size, Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(copy)
    wide = max(1, round(max(size) / 240))
    font = ImageFont.load_default(max(10, round(min(max(size) / 24, min(size) / 5))))
    if truth is not None:
        for box in truth.boxes[0][truth.present[0]].tolist():
            pen.rectangle([round(edge * scale) for edge in box], outline=TRUTH_COLOR, width=1)
    rows = zip(found.boxes.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True)
    for box, label, score in reversed(list(rows)):  # the most certain on top
        is_known = label < len(names)
        color = KNOWN_COLOR if is_known else UNKNOWN_COLOR
        left, top, right, bottom = (round(edge * scale) for edge in box)
        pen.rectangle((left, top, max(right, left), max(bottom, top)), outline=color, width=wide)
        text = f"{names[label] if is_known else 'unknown'} {score:.0%}"
        place = pen.textbbox((0, 0), text, font=font)
        height, width = place[3] + 2, place[2] + 4
        # Above the box, or below it, and always in the picture.
        x, y = max(min(left, copy.width - width), 0), top - height if top >= height else bottom
        y = max(min(y, copy.height - height), 0)
        pen.rectangle((x, y, x + width, y + height), fill=color)
        pen.text((x + 2, y), text, fill=(255, 255, 255), font=font)
    return copy


def gallery(
    shown: Sequence[Shown], names: Sequence[str], side: int = _GALLERY_SIDE, score: float = _GALLERY_SCORE
) -> npt.NDArray[np.uint8]:
    """Scenes with their detections side by side, ``(3, height, width)``.

    Args:
        shown: the scenes.
        names: of the known classes, by label.
        side: that of a scene in the picture, in pixels.
        score: detections below are not drawn: they count in the measures, but would hide the scene.
    """
    columns = min(_COLUMNS, len(shown))
    rows = math.ceil(len(shown) / columns)
    sheet = Image.new("RGB", (columns * (side + _GAP) - _GAP, rows * (side + _GAP) - _GAP), (40, 40, 40))
    for index, one in enumerate(shown):
        certain = one.found.scores >= score
        found = Detections(*(part[certain] for part in one.found))
        picture = draw_detections(as_picture(one.image), found, names, one.truth, side / one.image.shape[-1])
        sheet.paste(picture, (index % columns * (side + _GAP), index // columns * (side + _GAP)))
    return np.asarray(sheet).transpose(2, 0, 1)


def as_picture(image: Tensor) -> Image.Image:
    """A ``(3, H, W)`` uint8 image."""
    return Image.fromarray(image.permute(1, 2, 0).cpu().numpy())
