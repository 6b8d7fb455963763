"""Every mode of Pillow's against colors worked out from the bytes by hand or by the formula that defines the mode."""

from __future__ import annotations

import colorsys
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features

from curl_rl.vision.data import load
from curl_rl.vision.data.rgb import to_rgb, without_white
from helpers.image_bytes import cmyk_jpeg, tiff, twelve_bits
from helpers.image_folders import as_tensor, images_of, loaders, pixels, save

Color = Sequence[float]
WHITE = (255, 255, 255)


def gray(value: float) -> Color:
    return (value, value, value)


def over_white(color: Color, alpha: int) -> Color:
    return [channel * alpha / 255 + 255 - alpha for channel in color]


def from_cmyk(c: int, m: int, y: int, k: int) -> Color:
    return [255 * (1 - ink / 255) * (1 - k / 255) for ink in (c, m, y)]


def from_ycbcr(y: int, cb: int, cr: int) -> Color:
    """JFIF 1.02, page 3."""
    return [y + 1.402 * (cr - 128), y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128), y + 1.772 * (cb - 128)]


def from_hsv(h: int, s: int, v: int) -> Color:
    return [255 * channel for channel in colorsys.hsv_to_rgb(h / 255, s / 255, v / 255)]


def from_lab(lightness: float, a: float, b: float) -> Color:
    """CIE 15 with white D50, adapted to sRGB's white by Bradford's matrix (Lindbloom's tables), and IEC 61966-2-1."""
    y = (lightness + 16) / 116
    relative = np.array([y + a / 500, y, y - b / 200])
    relative = np.where(relative > 6 / 29, relative**3, (relative - 4 / 29) * 3 * (6 / 29) ** 2)
    to_linear = [
        [3.1338561, -1.6168667, -0.4906146],
        [-0.9787684, 1.9161415, 0.0334540],
        [0.0719453, -0.2289914, 1.4052427],
    ]
    linear = np.array(to_linear) @ (relative * [0.9642, 1.0, 0.8249])
    encoded = np.where(linear > 0.0031308, 1.055 * np.abs(linear) ** (1 / 2.4) - 0.055, 12.92 * linear)
    return [float(channel) for channel in 255 * encoded]


def palette(image: Image.Image, *colors: int, mode: str = "RGB", transparency: object = None) -> Image.Image:
    image.putpalette(colors, mode)
    if transparency is not None:
        image.info["transparency"] = transparency
    return image


def with_color_key(mode: str, data: bytes, key: object) -> Image.Image:
    image = two(mode, data)
    image.info["transparency"] = key
    return image


def two(mode: str, data: bytes) -> Image.Image:
    """An image of two pixels, one next to the other."""
    return Image.frombytes(mode, (2, 1), data)


CASES: list[tuple[str, Callable[[], Image.Image], list[Color], int]] = [
    ("1", lambda: two("1", b"\x40"), [gray(0), gray(255)], 0),
    ("1, black transparent", lambda: with_color_key("1", b"\x40", 0), [WHITE, WHITE], 0),
    ("L", lambda: two("L", b"\x07\xf0"), [gray(7), gray(240)], 0),
    ("L, 7 transparent", lambda: with_color_key("L", b"\x07\x08", 7), [WHITE, gray(8)], 0),
    ("LA", lambda: two("LA", bytes([40, 255, 40, 51])), [gray(40), over_white(gray(40), 51)], 1),
    ("La", lambda: two("La", bytes([40, 255, 8, 51])), [gray(40), over_white(gray(40), 51)], 1),
    ("P", lambda: palette(two("P", b"\0\1"), 1, 2, 3, 9, 8, 7), [(1, 2, 3), (9, 8, 7)], 0),
    ("P, 0 transparent", lambda: palette(two("P", b"\0\1"), 1, 2, 3, 9, 8, 7, transparency=0), [WHITE, (9, 8, 7)], 0),
    (
        "P, alpha by color",
        lambda: palette(two("P", b"\0\1"), 1, 2, 3, 90, 80, 70, transparency=b"\xff\x33"),
        [(1, 2, 3), over_white((90, 80, 70), 51)],
        1,
    ),
    (
        "P of RGBA",
        lambda: palette(two("P", b"\0\1"), 1, 2, 3, 255, 90, 80, 70, 51, mode="RGBA"),
        [(1, 2, 3), over_white((90, 80, 70), 51)],
        1,
    ),
    (
        "PA",
        lambda: palette(two("PA", bytes([0, 255, 1, 51])), 1, 2, 3, 90, 80, 70),
        [(1, 2, 3), over_white((90, 80, 70), 51)],
        1,
    ),
    ("RGB", lambda: two("RGB", bytes([1, 2, 3, 4, 5, 6])), [(1, 2, 3), (4, 5, 6)], 0),
    (
        "RGB, one color transparent",
        lambda: with_color_key("RGB", bytes([1, 2, 3, 1, 2, 4]), (1, 2, 3)),
        [WHITE, (1, 2, 4)],
        0,
    ),
    (
        "RGBA",
        lambda: two("RGBA", bytes([1, 2, 3, 255, 90, 80, 70, 51])),
        [(1, 2, 3), over_white((90, 80, 70), 51)],
        1,
    ),
    (
        "RGBa",
        lambda: two("RGBa", bytes([1, 2, 3, 255, 18, 16, 14, 51])),
        [(1, 2, 3), over_white((90, 80, 70), 51)],
        1,
    ),
    ("RGBX", lambda: two("RGBX", bytes([1, 2, 3, 0, 90, 80, 70, 51])), [(1, 2, 3), (90, 80, 70)], 0),
    (
        "CMYK",
        lambda: two("CMYK", bytes([0, 255, 255, 0, 100, 20, 0, 60])),
        [(255, 0, 0), from_cmyk(100, 20, 0, 60)],
        1,
    ),
    (
        "YCbCr",
        lambda: two("YCbCr", bytes([150, 128, 128, 120, 110, 150])),
        [gray(150), from_ycbcr(120, 110, 150)],
        1,
    ),
    # L* of 0 to 100 in 0 to 255, a* and b* in two's complement (TIFF 6.0, section 23)
    (
        "LAB",
        lambda: two("LAB", struct.pack("BbbBbb", 128, 0, 0, 153, 40, -30)),
        [from_lab(128 / 2.55, 0, 0), from_lab(60, 40, -30)],
        2,
    ),
    (
        "HSV",
        lambda: two("HSV", bytes([20, 200, 100, 170, 90, 250])),
        [from_hsv(20, 200, 100), from_hsv(170, 90, 250)],
        2,
    ),
    ("I;16", lambda: two("I;16", struct.pack("<2H", 300, 51_400)), [gray(1), gray(200)], 0),
    ("I;16L", lambda: two("I;16L", struct.pack("<2H", 300, 51_400)), [gray(1), gray(200)], 0),
    ("I;16B", lambda: two("I;16B", struct.pack(">2H", 300, 51_400)), [gray(1), gray(200)], 0),
    ("I;16N", lambda: two("I;16N", struct.pack("=2H", 300, 51_400)), [gray(1), gray(200)], 0),
    ("I;16, 300 transparent", lambda: with_color_key("I;16", struct.pack("<2H", 300, 301), 300), [WHITE, gray(1)], 0),
]


@pytest.mark.parametrize(("name", "make", "expected", "tolerance"), CASES, ids=[case[0] for case in CASES])
def test_a_mode_becomes_the_colors_it_stands_for(
    name: str, make: Callable[[], Image.Image], expected: list[Color], tolerance: int
) -> None:
    image = make()
    assert image.mode == name.split(",")[0].removesuffix(" of RGBA")
    assert without_white(image) is None
    found = to_rgb(image)
    assert found.mode == "RGB"
    assert np.abs(np.asarray(found)[0].astype(float) - np.array(expected)).max() <= tolerance


@pytest.mark.parametrize(("mode", "reason"), [("F", "floating-point numbers"), ("I", "signed or 32-bit integers")])
def test_numbers_without_a_white_are_refused(mode: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"its pixels are {reason} without a defined white"):
        to_rgb(Image.new(mode, (2, 2)))


# ------------------------------------------------------------------------ files


def read(path: Path, content: bytes) -> list[list[list[int]]]:
    """The loaded pixels of a file, rows of columns of channels."""
    for name in ("a", "b"):
        (path / f"{name}.tif").write_bytes(content)
    pixels: list[list[list[int]]] = images_of(load(path))[0].permute(1, 2, 0).tolist()
    return pixels


@pytest.mark.parametrize(
    ("content", "levels"),
    [
        (tiff(2, 2, 8, bytes([0, 10, 200, 255])), [0, 10, 200, 255]),
        (tiff(2, 2, 12, twelve_bits([0, 160, 3200, 4095])), [0, 10, 200, 255]),
        (tiff(2, 2, 16, struct.pack("<4H", 0, 2_600, 51_300, 65_535)), [0, 10, 200, 255]),
        (tiff(2, 2, 16, struct.pack(">4H", 0, 2_600, 51_300, 65_535), big=True), [0, 10, 200, 255]),
        (tiff(2, 2, 8, bytes([0, 10, 200, 255]), white=0), [255, 245, 55, 0]),
        (tiff(2, 2, 16, struct.pack("<4H", 0, 2_600, 51_300, 65_535), white=0), [255, 245, 55, 0]),
        (b"P5 2 2 4095\n" + struct.pack(">4H", 0, 161, 3212, 4095), [0, 10, 200, 255]),
        (b"P5 2 2 65535\n" + struct.pack(">4H", 0, 2_600, 51_300, 65_535), [0, 10, 200, 255]),
    ],
    ids=["8", "12", "16", "16-big-endian", "8-white-is-0", "16-white-is-0", "pgm-12", "pgm-16"],
)
def test_deep_gray_keeps_its_upper_8_bits(tmp_path: Path, content: bytes, levels: list[int]) -> None:
    assert read(tmp_path, content) == [[[level] * 3 for level in levels[row : row + 2]] for row in (0, 2)]


@pytest.mark.parametrize(
    "content",
    [
        tiff(2, 2, 32, struct.pack("<4I", 0, 1, 2, 3)),
        tiff(2, 2, 32, struct.pack("<4i", -1, 1, 2, 3), signed=True),
        tiff(2, 2, 16, struct.pack("<4h", -1, 1, 2, 3), signed=True),
    ],
    ids=["32", "32-signed", "16-signed"],
)
def test_integers_without_a_white_are_refused_before_they_come_out_black(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ValueError, match=r"none of the 2 images in .*a\.tif: its pixels are signed or 32-bit integers"):
        read(tmp_path, content)


def test_adobes_inverted_cmyk_is_turned_around(tmp_path: Path) -> None:
    # 255 means no ink: red is full magenta and yellow
    for found, inks in (
        (cmyk_jpeg([255, 0, 0, 255]), (0, 255, 255, 0)),
        (cmyk_jpeg([205, 255, 155, 195]), (50, 0, 100, 60)),
    ):
        (color,) = {tuple(pixel) for row in read(tmp_path, found) for pixel in row}
        assert np.abs(np.array(color) - from_cmyk(*inks)).max() <= 1


ORIENTED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).transpose(1, 0, 2),
    8: np.rot90,
}


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_every_orientation_of_a_camera_is_applied(tmp_path: Path, suffix: str) -> None:
    stored = pixels(0)
    for orientation in ORIENTED:
        exif = Image.Exif()
        exif[0x0112] = orientation
        save(tmp_path / f"{orientation}.{suffix}", stored, exif=exif, lossless=True)
    found = images_of(load(tmp_path))
    for image, shown in zip(found, ORIENTED.values(), strict=True):
        assert torch.equal(image, as_tensor(shown(stored)))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.gif", {}),
        ("a.png", {}),
        ("a.webp", {"lossless": True}),
        ("a.tif", {}),
        ("a.mpo", {}),
        ("a.jpg", {"format": "MPO"}),
    ],
)
def test_of_several_frames_or_pages_the_first_is_used(tmp_path: Path, name: str, options: dict[str, object]) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ((200, 0, 0), (0, 200, 0))]
    for copy in ("", "b"):
        save(tmp_path / f"{copy}{name}", frames[0], save_all=True, append_images=frames[1:], **options)
    with Image.open(tmp_path / name) as image:
        assert image.n_frames == 2  # type: ignore[attr-defined]
    found = images_of(load(tmp_path))[0].float()
    assert (found - torch.tensor([200.0, 0, 0]).view(3, 1, 1)).abs().max() <= 3


def test_color_profiles_are_ignored(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        save(tmp_path / name, pixels(0), icc_profile=b"a profile that shifts every color")
    assert torch.equal(images_of(load(tmp_path))[0], as_tensor(pixels(0)))


@pytest.mark.parametrize(
    ("suffix", "feature", "options"),
    [
        ("jfif", "jpg", {"format": "JPEG"}),
        ("jpe", "jpg", {}),
        ("avif", "avif", {"quality": 100}),
        ("jp2", "jpg_2000", {}),
        ("webp", "webp", {}),
        ("pbm", None, {}),
        ("apng", None, {"format": "PNG"}),
    ],
)
def test_what_pillow_reads_is_read(
    tmp_path: Path, suffix: str, feature: str | None, options: dict[str, object]
) -> None:
    if feature is not None and (feature not in (*features.modules, *features.codecs) or not features.check(feature)):
        pytest.skip(f"this build of Pillow lacks {feature}")
    for name in ("a", "b"):
        save(
            tmp_path / f"{name}.{suffix.upper()}",
            Image.new("1" if suffix == "pbm" else "RGB", (8, 8), "white"),
            **options,
        )
    for images in loaders(tmp_path):
        assert len(images) == 2
        assert images_of(images).min() >= 250


def test_qoi_is_read(tmp_path: Path) -> None:
    # one color in full, then the same one 15 times more, then the end (qoiformat.org)
    content = b"qoif" + struct.pack(">2I2B", 4, 4, 3, 0) + bytes([0xFE, 10, 20, 30, 0xC0 | 14]) + bytes(7) + b"\1"
    for name in ("a.qoi", "b.qoi"):
        (tmp_path / name).write_bytes(content)
    assert images_of(load(tmp_path))[0].flatten(1).T.unique(dim=0).tolist() == [[10, 20, 30]]
