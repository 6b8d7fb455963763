"""Converts an image of any of Pillow's modes to RGB.

Whatever has a defined white is scaled to it: gray of 16 bits, or of as many as a TIFF declares, by dropping the lower
ones. Transparency is composited on white, however it is stored. Color profiles are ignored, as in torchvision, except
that L*a*b* is converted to sRGB. 32-bit integers, signed ones and floating-point numbers have no defined white and are
refused: scaled by a guess, they could come out black.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # TIFF 6.0, section 8
_WHITE_IS_ZERO = 0
_HALF_OPAQUE = {"La": "LA", "RGBa": "RGBA"}  # colors multiplied by their alpha, and their usual form


def without_white(image: Image.Image) -> str | None:
    """Returns the reason why the image's pixels have no defined white, or None; reads nothing but the header."""
    if image.mode == "F":
        return "its pixels are floating-point numbers without a defined white: convert it to 8 or 16 bits"
    # Pillow reads gray PGM, and in earlier versions PNG, as 32-bit numbers that end at 65,535.
    if image.mode == "I" and image.format not in ("PNG", "PPM"):
        return "its pixels are signed or 32-bit integers without a defined white: convert it to 8 or 16 bits"
    return None


def to_rgb(image: Image.Image) -> Image.Image:
    """Returns the image, or its first frame or page, as RGB.

    Raises:
        ValueError: the pixels have no defined white.
    """
    if reason := without_white(image):
        raise ValueError(reason)
    if image.mode.startswith("I"):
        return _deep_gray_to_rgb(image)
    if image.mode in _HALF_OPAQUE:
        image = image.convert(_HALF_OPAQUE[image.mode])
    if _may_be_transparent(image):
        visible = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), visible).convert("RGB")
    return image.convert("RGB")


def _may_be_transparent(image: Image.Image) -> bool:
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        return True
    return image.mode == "P" and image.palette is not None and image.palette.mode.endswith("A")


def _deep_gray_to_rgb(image: Image.Image) -> Image.Image:
    tags = getattr(image, "tag_v2", {})  # those of a TIFF
    bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
    values = np.asarray(image)
    gray = (values >> (bits - 8)).clip(0, 255).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow inverts it at 8 bits and below only
        gray = 255 - gray
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        gray = np.where(values == transparent, np.uint8(255), gray)
    return Image.fromarray(gray).convert("RGB")
