"""Decodes image files to square RGB pixels of a given size.

Other formats are converted: gray, palette and CMYK by Pillow, 16 bits by dropping the lower 8, transparency by
compositing on white. The camera's EXIF orientation is applied.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from curl_rl.runs.console import say
from curl_rl.runs.errors import one_line

# An explicit list, because Pillow opens any format under any suffix, including PostScript with its interpreter.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
"""Suffixes of image files."""


def shorter_side(path: str) -> int | str:
    """Reads an image's shorter side in pixels from its header; returns the reason if it cannot be read."""
    try:
        with Image.open(path, formats=_FORMATS) as image:
            return min(image.size)
    except Exception as error:  # see decode
        return one_line(error)


def decode(path: str, size: int, target: npt.NDArray[np.uint8]) -> str | None:
    """Writes an image's center square into ``target``, ``(3, S, S)``; returns the reason if it cannot be read."""
    try:
        with Image.open(path, formats=_FORMATS) as image:
            image.draft(None, (size, size))  # a large JPEG is decoded at a half, a quarter or an eighth, never below S
            ImageOps.exif_transpose(image, in_place=True)
            rgb = _to_rgb(image)
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises almost anything on a broken file: SyntaxError, struct.error ...
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
        raise ValueError("its pixels are floating-point numbers without a defined white")
    if image.mode.startswith("I"):
        gray = (np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)
        return Image.fromarray(gray).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        visible = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), visible).convert("RGB")
    return image.convert("RGB")


def say_unreadable(path: str, problem: str) -> None:
    """Reports an image that is skipped."""
    say(f"skipped {path}, which cannot be read: {problem}")
