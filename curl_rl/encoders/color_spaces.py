"""RGB to L*a*b* and YCbCr: color spaces whose first channel is the lightness, and whose other two are the color."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

ColorSpace = Literal["lab", "ycbcr"]
Row = tuple[float, float, float]

# Linear sRGB to XYZ, over the XYZ of its white (D65, 2° observer), as in scikit-image.
_RELATIVE_XYZ: tuple[Row, ...] = (
    (0.412453 / 0.95047, 0.357580 / 0.95047, 0.180423 / 0.95047),
    (0.212671, 0.715160, 0.072169),
    (0.019334 / 1.08883, 0.119193 / 1.08883, 0.950227 / 1.08883),
)
# f(x), f(y), f(z) to L*, a*, b*.
_LAB: tuple[Row, ...] = ((0.0, 116.0, 0.0), (500.0, -500.0, 0.0), (0.0, 200.0, -200.0))
# ITU-R BT.601, with the headroom of video: Y in [16, 235], Cb and Cr in [16, 240].
_YCBCR: tuple[Row, ...] = ((65.481, 128.553, 24.966), (-37.797, -74.203, 112.0), (112.0, -93.786, -18.214))

# Centers and half-ranges of the channels in CMC's released code (https://github.com/HobbitLong/CMC, train_CMC).
# Those of L*a*b* are exact for the colors of sRGB.
_CENTERS = {"lab": (50.0, 6.025, -6.6895), "ycbcr": (116.151, 121.080, 132.342)}
_SCALES = {"lab": (50.0, 92.208, 101.1675), "ycbcr": (109.5, 111.855, 111.964)}


def rgb_to_lab(images: Tensor) -> Tensor:
    """sRGB in [0, 1] to CIE L*a*b* under D65 (CIE 15): L* in [0, 100], a* and b* within about ±108.

    Args:
        images: ``(..., 3, H, W)`` floating point.

    Returns:
        The same shape and type.
    """
    linear = torch.where(images > 0.04045, ((images.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4, images / 12.92)
    relative = _mixed(linear, _RELATIVE_XYZ)
    # The exact bound, (6/29)³, at which the two branches meet.
    bound = (6 / 29) ** 3
    curve = torch.where(relative > bound, relative.clamp_min(bound) ** (1 / 3), relative * (29 / 6) ** 2 / 3 + 4 / 29)
    return _mixed(curve, _LAB, (-16.0, 0.0, 0.0))


def rgb_to_ycbcr(images: Tensor) -> Tensor:
    """RGB in [0, 1] to YCbCr (ITU-R BT.601): Y in [16, 235], Cb and Cr in [16, 240].

    Takes and returns the shapes of :func:`rgb_to_lab`.
    """
    return _mixed(images, _YCBCR, (16.0, 128.0, 128.0))


def standardized(images: Tensor, space: ColorSpace) -> Tensor:
    """RGB in [0, 1] in a color space, each channel shifted and scaled to about [−1, 1].

    Takes and returns the shapes of :func:`rgb_to_lab`.
    """
    channels = (rgb_to_lab(images) if space == "lab" else rgb_to_ycbcr(images)).unbind(-3)
    scaled = zip(channels, _CENTERS[space], _SCALES[space], strict=True)
    return torch.stack([(channel - center) / scale for channel, center, scale in scaled], -3)


def _mixed(images: Tensor, matrix: tuple[Row, ...], offsets: Row = (0.0, 0.0, 0.0)) -> Tensor:
    """Each channel a sum of the channels, with the weights in a row of the matrix, plus an offset."""
    # As sums with numbers: a product on a GPU might round to TF32, and would have to wait for the matrix.
    red, green, blue = images.unbind(-3)
    rows = zip(matrix, offsets, strict=True)
    return torch.stack([r * red + g * green + b * blue + offset for (r, g, b), offset in rows], -3)
