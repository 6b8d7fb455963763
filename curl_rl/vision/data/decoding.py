"""Decodes image files to square RGB pixels of a given size.

See :mod:`~curl_rl.vision.data.rgb` for the conversion of other formats. The camera's EXIF orientation is applied. Of
several frames or pages only the first is used.
"""

from __future__ import annotations

import os
import stat

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError, features

from curl_rl.runs.console import say
from curl_rl.runs.errors import one_line
from curl_rl.vision.data.rgb import to_rgb, without_white

# An explicit list, because Pillow opens any format under any suffix, including PostScript with its interpreter. Without
# TGA, whose files begin with no mark of their own: a broken file of another format could pass for one.
_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "AVIF": (".avif",),
    "JPEG2000": (".jp2", ".j2k", ".jpx", ".jpf", ".j2c", ".jpc"),
    "QOI": (".qoi",),
}
_NEEDS = {"WEBP": "webp", "AVIF": "avif", "JPEG2000": "jpg_2000"}  # parts that a build of Pillow may lack
_KNOWN = (*features.modules, *features.codecs)
FORMATS = tuple(
    name for name in _SUFFIXES if name not in _NEEDS or (_NEEDS[name] in _KNOWN and features.check(_NEEDS[name]))
)
"""Names of the formats that this Pillow reads."""
SUFFIXES = tuple(suffix for name in FORMATS for suffix in _SUFFIXES[name])
"""Suffixes of the image files that this Pillow reads."""


def shorter_side(path: str) -> int | str:
    """Reads an image's shorter side in pixels from its header; returns the reason if it cannot be read or converted."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            return "it is not a regular file"  # opening a named pipe would wait forever
        if not status.st_size:
            return "it is empty"
        with Image.open(path, formats=FORMATS) as image:
            return without_white(image) or min(image.size)
    except Exception as error:  # see decode
        return reason(error)


def decode(path: str, size: int, target: npt.NDArray[np.uint8]) -> str | None:
    """Writes an image's center square into ``target``, ``(3, S, S)``; returns the reason if it cannot be read."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            image.draft(None, (size, size))  # a large JPEG is decoded at a half, a quarter or an eighth, never below S
            if image.format != "TIFF":  # turned on loading, and by Pillow 10.0 here once more
                ImageOps.exif_transpose(image, in_place=True)
            rgb = to_rgb(image)
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises almost anything on a broken file: SyntaxError, struct.error ...
        return reason(error)
    side = min(rgb.size)
    if max(rgb.size) > side:
        left, top = (rgb.width - side) // 2, (rgb.height - side) // 2
        rgb = rgb.crop((left, top, left + side, top + side))
    if side != size:
        rgb = rgb.resize((size, size), Image.Resampling.BILINEAR)
    target[:] = np.asarray(rgb).transpose(2, 0, 1)
    return None


def open_picture(path: str) -> Image.Image | str:
    """A whole image as RGB, upright; or the reason why it cannot be read."""
    if isinstance(problem := shorter_side(path), str):
        return problem
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.format != "TIFF":  # see decode
                ImageOps.exif_transpose(image, in_place=True)
            return to_rgb(image)
    except MemoryError:
        raise
    except Exception as error:  # see decode
        return reason(error)


def reason(error: Exception) -> str:
    """Says why an image cannot be read; unlike the errors', without its path, which stands before it."""
    if isinstance(error, UnidentifiedImageError):
        return "it is not an image of a known format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return one_line(error)


def say_unreadable(path: str, problem: str) -> None:
    """Reports an image that is skipped."""
    say(f"skipped {path}, which cannot be read: {problem}")
