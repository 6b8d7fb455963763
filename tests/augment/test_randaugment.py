"""RandAugment: each operation against Pillow, numpy and torchvision, and how often each is drawn."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import scipy.stats
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from curl_rl.augment import random_augment
from curl_rl.augment.randaugment import OPERATIONS, apply_operations


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bytes_(batch: int, height: int = 24, width: int = 30) -> torch.Tensor:
    """Smooth pictures of medium brightness, so that no operation is trivial, with noise on top: uint8."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width] / 30
    base = 120 + 60 * np.sin(3 * x + rng.uniform(0, 6, (batch, 3, 1, 1))) * np.cos(4 * y)
    return torch.from_numpy((base + rng.uniform(0, 20, base.shape)).astype(np.uint8))


def apply(images: torch.Tensor, name: str, magnitude: int, *, negative: bool = False) -> torch.Tensor:
    drawn = torch.full((len(images),), OPERATIONS.index(name))
    return apply_operations(images / 255, drawn, torch.full((len(images),), negative), magnitude)


def pillow(images: torch.Tensor, change) -> torch.Tensor:
    changed = [np.asarray(change(Image.fromarray(image.permute(1, 2, 0).numpy()))) for image in images]
    return torch.from_numpy(np.stack(changed)).permute(0, 3, 1, 2) / 255


# At magnitude 15 of 30: half of every range.
@pytest.mark.parametrize(
    ("name", "change", "tolerance"),
    [
        ("identity", lambda image: image, 0),
        ("brightness", lambda image: ImageEnhance.Brightness(image).enhance(1.45), 1.01),
        ("saturation", lambda image: ImageEnhance.Color(image).enhance(1.45), 2),
        ("contrast", lambda image: ImageEnhance.Contrast(image).enhance(1.45), 2),
        ("sharpness", lambda image: ImageEnhance.Sharpness(image).enhance(1.45), 1.51),
        ("posterize", lambda image: ImageOps.posterize(image, 6), 0.01),
        ("solarize", lambda image: ImageOps.solarize(image, 128), 0.01),
        ("autocontrast", ImageOps.autocontrast, 1.01),
        ("equalize", ImageOps.equalize, 0.01),
    ],
)
def test_operations_on_values_are_pillows(name: str, change, tolerance: float) -> None:
    images = bytes_(3)
    difference = (apply(images, name, 15) - pillow(images, change)).abs().max() * 255
    assert difference <= tolerance
    if name != "identity":
        assert not torch.equal(apply(images, name, 15), images / 255)


def test_posterizing_keeps_a_whole_number_of_bits() -> None:
    images = bytes_(2)
    expected = pillow(images, lambda image: ImageOps.posterize(image, 5))  # 8 − 4 · 20 / 30 is 5.3
    assert torch.allclose(apply(images, "posterize", 20), expected, atol=1e-6)


@pytest.mark.parametrize("magnitude", range(31))
def test_a_byte_at_solarizings_threshold_is_inverted(magnitude: int) -> None:
    every_byte = torch.arange(256, dtype=torch.uint8).expand(1, 3, 1, 256)
    reached = every_byte.int() * 30 >= 255 * (30 - magnitude)
    expected = torch.where(reached, 255 - every_byte, every_byte) / 255
    assert torch.allclose(apply(every_byte, "solarize", magnitude), expected, atol=1e-6)


def test_pillows_smoothing_is_what_sharpness_starts_from() -> None:
    images = bytes_(2)
    smooth = pillow(images, lambda image: image.filter(ImageFilter.SMOOTH))
    expected = images / 255 + 0.45 * (images / 255 - smooth)
    assert (apply(images, "sharpness", 15) - expected).abs().max() * 255 < 0.45 * 0.51


def test_translations_move_by_whole_pixels_and_black_comes_in() -> None:
    images = bytes_(2, 24, 30)
    moved = 6  # floor(150 / 331 · 30 · 15 / 30)
    expected = torch.zeros_like(images)
    expected[..., moved:] = images[..., :-moved]
    assert torch.allclose(apply(images, "translate_x", 15), expected / 255)
    moved = 5  # floor(150 / 331 · 24 · 15 / 30)
    expected = torch.zeros_like(images)
    expected[..., :-moved, :] = images[..., moved:, :]
    assert torch.allclose(apply(images, "translate_y", 15, negative=True), expected / 255)


def test_shears_shift_each_row_in_proportion_to_its_height() -> None:
    images = bytes_(2, 24, 24)
    share = 0.3 * 10 / 30
    sheared_x, sheared_y = (apply(images, name, 10, negative=True) for name in ("shear_x", "shear_y"))
    for line in range(24):
        shift = round(share * (line + 0.5))
        expected = torch.zeros(2, 3, 24)
        expected[..., shift:] = images[:, :, line, : 24 - shift] / 255
        assert torch.allclose(sheared_x[:, :, line], expected), line
        expected = torch.zeros(2, 3, 24)
        expected[..., shift:] = images[:, :, : 24 - shift, line] / 255
        assert torch.allclose(sheared_y[:, :, :, line], expected), line


@pytest.mark.parametrize("negative", [False, True])
def test_rotation_is_counter_clockwise_about_the_middle(negative: bool) -> None:
    images = bytes_(2, 25, 31)
    angle = -22 if negative else 22
    expected = pillow(images, lambda image: image.rotate(angle, Image.Resampling.NEAREST))
    rotated = apply(images, "rotate", 22, negative=negative)
    # Pixels whose source is halfway between two may go either way.
    assert (~torch.isclose(rotated, expected, atol=1e-6)).float().mean() < 0.01


# Magnitudes at which no pixel's source is halfway between two, where rounding would decide.
@pytest.mark.parametrize("magnitude", [0, 5, 9, 10, 30])
def test_operations_are_torchvisions(torchvision: ModuleType, magnitude: int) -> None:
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.autoaugment import RandAugment, _apply_op

    images = bytes_(2, 20, 27)
    space = RandAugment()._augmentation_space(31, (20, 27))
    for name, (theirs, (magnitudes, signed)) in zip(OPERATIONS, space.items(), strict=True):
        for negative in (False, True) if signed else (False,):
            strength = float(magnitudes[magnitude]) if magnitudes.ndim else 0.0
            strength = -strength if negative else strength
            expected = [_apply_op(image, theirs, strength, InterpolationMode.NEAREST, None) for image in images]
            difference = (apply(images, name, magnitude, negative=negative) - torch.stack(expected) / 255).abs() * 255
            # torchvision rounds down to bytes, including the gray or smooth image that it blends with.
            assert difference.max() < (2 if name in ("brightness", "saturation", "contrast", "sharpness") else 1.01), (
                name
            )
            assert difference.mean() < (1 if signed or name == "autocontrast" else 1e-3), name


def test_each_image_gets_its_own_operation() -> None:
    images = bytes_(1).expand(len(OPERATIONS), -1, -1, -1).contiguous()
    together = apply_operations(images / 255, torch.arange(len(OPERATIONS)), torch.zeros(len(OPERATIONS)).bool(), 15)
    for i, name in enumerate(OPERATIONS):
        assert torch.allclose(together[i], apply(images[:1], name, 15)[0], atol=1e-6), name
    assert len({image.numpy().tobytes() for image in together}) == len(OPERATIONS)


def test_a_flat_image_survives_stretching_and_equalizing() -> None:
    flat = torch.full((1, 3, 20, 20), 77, dtype=torch.uint8)
    for name in ("autocontrast", "equalize"):
        assert torch.allclose(apply(flat, name, 9), flat / 255)


def test_operations_and_directions_are_drawn_uniformly() -> None:
    image = bytes_(1, 20, 24)
    directed = OPERATIONS[1:10]
    outcomes = [
        (name, negative) for name in OPERATIONS for negative in ([False, True] if name in directed else [False])
    ]
    known = torch.cat([apply(image, name, 20, negative=negative) for name, negative in outcomes]).flatten(1)
    drawn = random_augment((image / 255).repeat(3000, 1, 1, 1), generator(), operations=1, magnitude=20).flatten(1)
    distance, which = torch.cdist(drawn, known, compute_mode="donot_use_mm_for_euclid_dist").min(1)
    assert distance.max() < 1e-4
    counts = torch.bincount(which, minlength=len(outcomes)).numpy()
    expected = [3000 / 28 if name in directed else 3000 / 14 for name, _ in outcomes]
    assert scipy.stats.chisquare(counts, expected).pvalue > 1e-3


def test_operations_follow_one_another_and_none_is_the_image() -> None:
    images = torch.zeros(14_000, 3, 1, 17)
    images[..., 8] = 0.9
    assert torch.equal(random_augment(images, generator(), operations=0), images)
    twice = random_augment(images, generator(), operations=2, magnitude=15)  # floor(150 / 331 · 17 / 2) = 3 pixels
    assert scipy.stats.binomtest(int((twice[:, 0, 0, 14] > 0.5).sum()), 14_000, 1 / 28**2).pvalue > 1e-3


def test_results_stay_in_range_keep_type_and_follow_the_generator() -> None:
    images = (bytes_(60) / 255).double()
    first, second = (random_augment(images, generator(4), operations=3, magnitude=30) for _ in range(2))
    assert torch.equal(first, second)
    assert first.dtype == torch.float64
    assert first.min() >= 0
    assert first.max() <= 1
    other = 1 - images
    other[7] = images[7]
    assert torch.equal(random_augment(other, generator(4), operations=3, magnitude=30)[7], first[7])


@pytest.mark.parametrize("magnitude", [-1, 31])
def test_a_magnitude_out_of_range_is_refused(magnitude: int) -> None:
    with pytest.raises(ValueError, match=rf"magnitude must lie in \[0, 30\], got {magnitude}"):
        random_augment(bytes_(1) / 255, generator(), magnitude=magnitude)
