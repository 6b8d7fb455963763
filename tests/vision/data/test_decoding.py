"""Image files of every kind compared with the pixels that were drawn; broken ones by the messages about them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from curl_rl.vision.data import load
from helpers.image_folders import as_tensor, images_of, loaders, make_classes, pixels, save


def test_the_largest_centered_square_is_scaled_to_the_size(tmp_path: Path) -> None:
    wide, tall = np.zeros((4, 8, 3), np.uint8), np.zeros((8, 4, 3), np.uint8)
    wide[:, 2:6], tall[2:6] = 200, 100
    for name, image in (("a.png", wide), ("b.png", tall)):
        save(tmp_path / name, image)
    for images in loaders(tmp_path, size=2):
        assert images_of(images)[:, 0].tolist() == [[[200, 200]] * 2, [[100, 100]] * 2]
    for images in loaders(tmp_path):
        assert images.size == 4, "the shorter side of both"
        assert torch.equal(images_of(images)[0], as_tensor(wide[:, 2:6]))


def test_scaling_down_is_antialiased(tmp_path: Path) -> None:
    stripes = np.zeros((16, 16, 3), np.uint8)
    stripes[:, ::2] = 240
    for name in ("a.png", "b.png"):
        save(tmp_path / name, stripes)
    inner = images_of(load(tmp_path, size=4))[0, :, :, 1:3].float()
    assert (inner - 120).abs().max() <= 8, (
        "the mean of the stripes; without antialiasing it would be one stripe's value"
    )


def test_an_odd_margin_is_cut_and_not_blurred(tmp_path: Path) -> None:
    image = pixels(0, 5, 8)
    for name in ("a.png", "b.png"):
        save(tmp_path / name, image)
    assert torch.equal(images_of(load(tmp_path))[0], as_tensor(image[:, 1:6]))


def test_a_large_jpeg_is_decoded_close_to_pillows_full_decoding(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 160, dtype=np.uint8)
    image = np.stack([np.tile(ramp, (120, 1)), np.tile(ramp[:120, None], (1, 160)), np.full((120, 160), 90)], 2)
    for name in ("a.jpg", "b.jpg"):
        save(tmp_path / name, image.astype(np.uint8), quality=95)
    with Image.open(tmp_path / "a.jpg") as whole:
        expected = np.asarray(whole.crop((20, 0, 140, 120)).resize((24, 24), Image.Resampling.BILINEAR))
    difference = images_of(load(tmp_path, size=24))[0].float() - as_tensor(expected).float()
    assert difference.abs().mean() < 2


def gray(value: int) -> list[int]:
    return [value] * 3


def sixteen_bits() -> Image.Image:
    return Image.fromarray(np.full((4, 4), 200 * 256 + 77, dtype=np.uint16))


def palette_with_transparency(color: int) -> Image.Image:
    image = Image.new("P", (4, 4), color)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.info["transparency"] = 0
    return image


@pytest.mark.parametrize(
    ("suffix", "make", "expected"),
    [
        ("png", lambda: Image.new("L", (4, 4), 70), gray(70)),
        ("png", lambda: Image.new("1", (4, 4), 1), gray(255)),
        ("png", sixteen_bits, gray(200)),
        ("tif", sixteen_bits, gray(200)),
        ("png", lambda: Image.new("RGBA", (4, 4), (255, 0, 0, 128)), [255, 127, 127]),
        ("png", lambda: Image.new("LA", (4, 4), (0, 0)), gray(255)),
        ("png", lambda: palette_with_transparency(1), [10, 20, 30]),
        ("png", lambda: palette_with_transparency(0), gray(255)),
        ("jpg", lambda: Image.new("CMYK", (4, 4), (0, 255, 255, 0)), [255, 0, 0]),
        ("gif", lambda: Image.new("P", (4, 4), 0), gray(0)),
        ("webp", lambda: Image.new("RGB", (4, 4), (255, 255, 255)), gray(255)),
        ("ppm", lambda: Image.new("RGB", (4, 4), (1, 2, 3)), [1, 2, 3]),
    ],
)
def test_other_formats_are_converted_to_rgb(
    tmp_path: Path, suffix: str, make: Callable[[], Image.Image], expected: list[int]
) -> None:
    for name in ("a", "b"):
        save(tmp_path / f"{name}.{suffix}", make())
    found = images_of(load(tmp_path))[0].float()
    assert (found - torch.tensor(expected).view(3, 1, 1)).abs().max() <= (2 if suffix == "jpg" else 0)


def test_the_cameras_orientation_is_applied(tmp_path: Path) -> None:
    image = pixels(0)
    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown rotated by 90°, clockwise
    for name in ("a.png", "b.png"):
        save(tmp_path / name, image, exif=turned)
    for images in loaders(tmp_path):
        assert torch.equal(images_of(images)[0], as_tensor(np.rot90(image, -1)))


# ------------------------------------------------------------------- unreadable images


def with_broken_ones(folder: Path) -> Path:
    """Four good images and five broken ones; the last two prove broken only when decoded."""
    make_classes(folder, ant=2, bee=2)
    (folder / "ant" / "00a.jpg").write_bytes(b"")
    (folder / "ant" / "00b.jpg").write_text("not an image")
    (folder / "bee" / "01a.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 6\n")
    save(folder / "bee" / "00c.jpg", pixels(9, 64)[:, :, 0])
    whole = (folder / "bee" / "00c.jpg").read_bytes()
    (folder / "bee" / "00c.jpg").write_bytes(whole[: len(whole) // 2])
    save(folder / "ant" / "00d.png", pixels(9, 64))
    whole = (folder / "ant" / "00d.png").read_bytes()
    (folder / "ant" / "00d.png").write_bytes(whole[: len(whole) // 2])
    return folder


def test_unreadable_images_are_reported_once_skipped_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = load(with_broken_ones(tmp_path), size=6, storage="memory")
    said = capsys.readouterr().err
    for name in ("00a.jpg", "00b.jpg", "01a.jpg", "00c.jpg", "00d.png"):
        assert sum(name in line for line in said.splitlines()) == 1
    assert "skipped 5 of 9 images" in said
    assert len(images.skipped) == 5
    assert images.required_labels().tolist() == [0, 0, 1, 1]
    assert torch.equal(images_of(images), torch.stack([as_tensor(pixels(number)) for number in range(4)]))


def test_a_stream_reports_an_image_that_proves_unreadable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = load(with_broken_ones(tmp_path), size=6, storage="stream", workers=0)
    said = capsys.readouterr().err
    assert "skipped 3 of 9 images" in said
    assert "00c.jpg" not in said, "reported once, when its turn comes"
    # Their order: ant 00, 00d (broken), 01; bee 00, 00c (broken), 01.
    for _ in range(2):
        (batch,) = images.batches(6, shuffle=False, drop_last=False)
        assert batch.indices.tolist() == [0, 2, 3, 5], "left out"
        assert torch.equal(batch.images, torch.stack([as_tensor(pixels(number)) for number in range(4)]))
        assert batch.labels is not None
        assert batch.labels.tolist() == [0, 0, 1, 1]
        (batch,) = images.batches(6, shuffle=False)
        assert batch.indices.tolist() == [0, 2, 2, 3, 5, 5], "the next one takes its place"
        assert torch.equal(batch.images[1], batch.images[2])
    said = capsys.readouterr().err
    assert said.count("00c.jpg") == said.count("00d.png") == len(said.splitlines()) - 1 == 1
    assert len(images.skipped) == 5


def test_floating_point_pixels_are_unreadable_and_not_black(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_classes(tmp_path, ant=2)
    save(tmp_path / "ant" / "x.tif", Image.fromarray(np.full((6, 6), 0.5, np.float32)))
    assert len(load(tmp_path)) == 2
    assert "x.tif, which cannot be read: its pixels are floating-point numbers" in capsys.readouterr().err


def test_the_last_images_substitute_is_the_first_one(tmp_path: Path) -> None:
    make_classes(tmp_path, ant=3)
    images = load(tmp_path, storage="stream", workers=0)
    (tmp_path / "ant" / "02.png").unlink()
    (batch,) = images.batches(3, shuffle=False)
    assert batch.indices.tolist() == [0, 1, 0]


def test_a_disk_that_is_gone_ends_the_epoch(tmp_path: Path) -> None:
    make_classes(tmp_path, ant=4)
    images = load(tmp_path, storage="stream", workers=0)
    for path in (tmp_path / "ant").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"4 consecutive images of .* cannot be read: is the disk still there\?"):
        next(images.batches(2))
