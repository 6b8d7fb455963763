"""Color spaces against published values of single colors, Pillow, scikit-image and their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from torch import Tensor

from curl_rl.encoders.color_spaces import rgb_to_lab, rgb_to_ycbcr, standardized

IMAGES = torch.rand(2, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
CORNERS = torch.cartesian_prod(*[torch.linspace(0, 1, 9, dtype=torch.float64)] * 3).T[:, :, None]


def color(red: float, green: float, blue: float) -> Tensor:
    return torch.tensor([red, green, blue], dtype=torch.float64).view(3, 1, 1)


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        # The corners of the cube as tabulated for sRGB under D65, and a dark gray on the linear branch.
        ((1, 1, 1), (100.0, 0.0, 0.0)),
        ((0, 0, 0), (0.0, 0.0, 0.0)),
        ((1, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 1, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 1), (32.30, 79.19, -107.86)),
        ((0.01, 0.01, 0.01), (903.2963 * 0.01 / 12.92, 0.0, 0.0)),
    ],
)
def test_lab_of_single_colors(rgb: tuple[float, float, float], lab: tuple[float, float, float]) -> None:
    assert rgb_to_lab(color(*rgb)).flatten().tolist() == pytest.approx(lab, abs=0.02)


@pytest.mark.parametrize(
    ("rgb", "ycbcr"),
    [
        # BT.601 in eight bits: gray has no color, and pure colors are at the ends of the range.
        ((1, 1, 1), (235, 128, 128)),
        ((0, 0, 0), (16, 128, 128)),
        ((1, 0, 0), (81.481, 90.203, 240)),
        ((0, 0, 1), (40.966, 240, 109.786)),
    ],
)
def test_ycbcr_of_single_colors(rgb: tuple[float, float, float], ycbcr: tuple[float, float, float]) -> None:
    assert rgb_to_ycbcr(color(*rgb)).flatten().tolist() == pytest.approx(ycbcr, abs=1e-3)


def test_ycbcr_is_pillows_up_to_its_range() -> None:
    """Pillow's is JPEG's, without headroom."""
    pixels = (IMAGES[0] * 255).round().to(torch.uint8)
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    full = torch.from_numpy(np.array(image.convert("YCbCr"))).permute(2, 0, 1).double()
    found = rgb_to_ycbcr(pixels.double() / 255)
    assert torch.allclose((found[0] - 16) * 255 / 219, full[0], atol=1.5)
    assert torch.allclose((found[1:] - 128) * 255 / 224, full[1:] - 128, atol=1.5)


def test_lab_orders_colors_as_a_color_management_system_does() -> None:
    """Pillow's profile of L*a*b* has D50 as its white, so that only the lightness is comparable, to about a unit."""
    pixels = (IMAGES[0] * 255).round().to(torch.uint8)
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    transform = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None
    expected = torch.from_numpy(np.array(converted))[:, :, 0].double() * 100 / 255
    assert torch.allclose(rgb_to_lab(pixels.double() / 255)[0], expected, atol=2.0)


def test_both_are_scikit_images() -> None:
    color_of = pytest.importorskip("skimage.color")
    channels_last = IMAGES.permute(0, 2, 3, 1).numpy()
    for found, function in ((rgb_to_lab(IMAGES), color_of.rgb2lab), (rgb_to_ycbcr(IMAGES), color_of.rgb2ycbcr)):
        expected = torch.from_numpy(function(channels_last)).permute(0, 3, 1, 2)
        assert torch.allclose(found, expected, atol=2e-3)


def test_gray_has_no_color_and_the_lightness_rises_without_a_jump() -> None:
    grays = torch.linspace(0, 1, 10001, dtype=torch.float64).expand(3, 1, -1)
    lightness, *chroma = rgb_to_lab(grays)
    assert lightness.diff().min() > 0
    assert lightness.diff().max() < 0.02
    assert torch.stack(chroma).abs().max() < 0.02


@pytest.mark.parametrize("space", ["lab", "ycbcr"])
def test_standardized_colors_fill_about_the_unit_interval(space: str) -> None:
    values = standardized(CORNERS, space)  # type: ignore[arg-type]
    assert values.amax((1, 2)).tolist() == pytest.approx([1, 1, 1], abs=0.1)
    assert values.amin((1, 2)).tolist() == pytest.approx([-1, -1, -1], abs=0.1)
