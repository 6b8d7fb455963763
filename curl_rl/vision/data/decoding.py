"""An image file becomes pixels: RGB, square, of the size that is asked for.

What is not RGB is made so: grey, palette and CMYK by Pillow's conversion, 16 bits by dropping the lower 8, transparency
by laying the image on white; the orientation that the camera noted (EXIF) is applied.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from curl_rl.runs.console import say
from curl_rl.runs.errors import one_line

# Named one by one, because Pillow would take any format under any suffix, PostScript and its interpreter included.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
"""How the names of image files end."""


def shorter_side(path: str) -> int | str:
    """Pixels of an image's shorter side, from its header alone; or why it cannot be read."""
    try:
        with Image.open(path, formats=_FORMATS) as image:
            return min(image.size)
    except Exception as error:  # see decode
        return one_line(error)


def decode(path: str, size: int, target: npt.NDArray[np.uint8]) -> str | None:
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
        gray = (np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)
        return Image.fromarray(gray).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        visible = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), visible).convert("RGB")
    return image.convert("RGB")


def say_unreadable(path: str, problem: str) -> None:
    """Names an image that is left out."""
    say(f"skipped {path}, which cannot be read: {problem}")
