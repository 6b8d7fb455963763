"""Color operations against the standard library's colorsys, numbers worked out by hand and torchvision."""

from __future__ import annotations

import colorsys
import itertools
from types import ModuleType

import numpy as np
import pytest
import scipy.stats
import torch

from curl_rl.augment import (
    Jitter,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    color_jitter,
    random_color_jitter,
    random_grayscale,
    random_solarize,
    solarize,
)
from curl_rl.augment.color import BRIGHTNESS, CONTRAST, HUE, SATURATION, blend, draw_jitter

OPERATIONS = {
    BRIGHTNESS: adjust_brightness,
    CONTRAST: adjust_contrast,
    SATURATION: adjust_saturation,
    HUE: adjust_hue,
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(batch: int, *, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Noise that includes black, white, gray, pure colors and ties between channels: (B, 3, 9, 7)."""
    images = torch.rand(batch, 3, 9, 7, generator=generator(1), dtype=dtype)
    images[:, :, 0] = (images[:, :, 0] > 0.5).to(dtype)
    images[:, :, 1] = images[:, :1, 1]
    images[:, 1, 2] = images[:, 0, 2]
    images[:, 2, 3] = images[:, 1, 3]
    images[:, 0, 4] = images[:, 2, 4]
    return images


def one_pixel(red: float, green: float, blue: float) -> torch.Tensor:
    return torch.tensor([red, green, blue], dtype=torch.float64).view(1, 3, 1, 1)


def parameter(value: float) -> torch.Tensor:
    return torch.tensor([value], dtype=torch.float64)


def test_hue_is_colorsys() -> None:
    images = pictures(6, dtype=torch.float64)
    shifts = torch.tensor([-0.5, -0.31, -0.05, 0.0, 0.2, 0.5], dtype=torch.float64)
    turned = adjust_hue(images, shifts)
    for image, shift, result in zip(images, shifts.tolist(), turned, strict=True):
        for before, after in zip(image.flatten(1).T.tolist(), result.flatten(1).T.tolist(), strict=True):
            hue, saturation, value = colorsys.rgb_to_hsv(*before)
            np.testing.assert_allclose(after, colorsys.hsv_to_rgb((hue + shift) % 1, saturation, value), atol=1e-12)


def test_a_third_of_the_circle_turns_red_into_green_and_green_into_blue() -> None:
    assert torch.allclose(adjust_hue(one_pixel(0.9, 0.2, 0.1), parameter(1 / 3)), one_pixel(0.1, 0.9, 0.2))
    assert torch.allclose(adjust_hue(one_pixel(0.2, 0.9, 0.1), parameter(1 / 3)), one_pixel(0.1, 0.2, 0.9))
    assert torch.allclose(adjust_hue(one_pixel(0.9, 0.2, 0.1), parameter(-1 / 3)), one_pixel(0.2, 0.1, 0.9))


def test_brightness_scales_and_clamps() -> None:
    assert torch.allclose(adjust_brightness(one_pixel(0.1, 0.4, 0.8), parameter(1.5)), one_pixel(0.15, 0.6, 1))


def test_saturation_moves_away_from_the_pixels_gray() -> None:
    gray = 0.2989 * 0.5 + 0.587 * 0.2 + 0.114 * 0.4
    assert torch.allclose(adjust_saturation(one_pixel(0.5, 0.2, 0.4), parameter(0)), one_pixel(gray, gray, gray))
    half = one_pixel((0.5 + gray) / 2, (0.2 + gray) / 2, (0.4 + gray) / 2)
    assert torch.allclose(adjust_saturation(one_pixel(0.5, 0.2, 0.4), parameter(0.5)), half)


def test_contrast_moves_away_from_the_images_mean_gray() -> None:
    two = torch.cat([one_pixel(0.5, 0.2, 0.4), one_pixel(0.1, 0.3, 0.9)], dim=3)
    mean = (0.2989 * 0.6 + 0.587 * 0.5 + 0.114 * 1.3) / 2
    assert torch.allclose(adjust_contrast(two, parameter(0)), torch.full_like(two, mean))
    assert torch.allclose(adjust_contrast(two, parameter(1.5)), (1.5 * two - 0.5 * mean).clamp(0, 1))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_operations_are_torchvisions(torchvision: ModuleType, operation: int) -> None:
    from torchvision.transforms import functional

    theirs = [
        functional.adjust_brightness,
        functional.adjust_contrast,
        functional.adjust_saturation,
        functional.adjust_hue,
    ][operation]
    images = pictures(9)
    values = torch.linspace(-0.5, 0.5, 9) if operation == HUE else torch.linspace(0, 2.5, 9)
    ours = OPERATIONS[operation](images, values)
    for image, value, result in zip(images, values.tolist(), ours, strict=True):
        assert (result - theirs(image, value)).abs().max() < 1e-5


def test_jitter_does_the_steps_in_each_images_own_order() -> None:
    orders = torch.tensor(list(itertools.permutations(range(4))))
    images = pictures(24, dtype=torch.float64)
    rng = generator(2)
    factors = [torch.rand(24, generator=rng, dtype=torch.float64) * 1.6 + 0.2 for _ in range(3)]
    jitter = Jitter(*factors, torch.rand(24, generator=rng, dtype=torch.float64) - 0.5, orders)
    together = color_jitter(images, jitter)
    for i, order in enumerate(orders.tolist()):
        expected = images[i : i + 1]
        for operation in order:
            expected = OPERATIONS[operation](expected, jitter[operation][i : i + 1])
        assert torch.allclose(together[i : i + 1], expected, atol=1e-12), order


def test_jitters_numbers_are_uniform_and_all_orders_equally_likely() -> None:
    jitter = draw_jitter(5000, generator(), brightness=0.4, contrast=1.5, saturation=0.2, hue=0.1)
    for drawn, low, high in zip(jitter[:4], (0.6, 0, 0.8, -0.1), (1.4, 2.5, 1.2, 0.1), strict=True):
        uniform = scipy.stats.uniform(low, high - low)
        assert scipy.stats.kstest(drawn.double().numpy(), uniform.cdf).pvalue > 1e-3
    codes = (jitter.order * torch.tensor([64, 16, 4, 1])).sum(1).numpy()
    orders, counts = np.unique(codes, return_counts=True)
    assert len(orders) == 24
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_jitter_leaves_unchosen_images_alone() -> None:
    numbers = draw_jitter(5000, generator(), brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, probability=0.8)
    alone = numbers.hue == 0
    assert scipy.stats.binomtest(int(alone.sum()), 5000, 0.2).pvalue > 1e-3
    for factor in numbers[:3]:
        assert torch.equal(factor == 1, alone)


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_jitter_never_and_always(probability: float) -> None:
    images = pictures(40)
    strengths = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
    changed = random_color_jitter(images, generator(), **strengths, probability=probability)
    changes = (changed - images).abs().amax((1, 2, 3))
    assert (changes > 1e-3).all() if probability else (changes < 1e-6).all()
    assert changed.min() >= 0
    assert changed.max() <= 1


def test_grayscale_is_the_pixels_gray_in_three_channels() -> None:
    images = pictures(1000)
    changed = random_grayscale(images, generator(), probability=0.2)
    gray = (images * torch.tensor([0.2989, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True).expand_as(images)
    is_gray = torch.isclose(changed, gray, atol=1e-6).flatten(1).all(1)
    is_same = torch.isclose(changed, images, atol=1e-6).flatten(1).all(1)
    assert (is_gray ^ is_same).all()
    assert scipy.stats.binomtest(int(is_gray.sum()), 1000, 0.2).pvalue > 1e-3
    assert torch.equal(random_grayscale(images, generator(), probability=0), images)
    assert torch.allclose(random_grayscale(images, generator(), probability=1), gray, atol=1e-6)


def test_solarizing_inverts_what_reaches_the_threshold() -> None:
    images = torch.tensor([0.25, 0.5, 0.75]).view(1, 3, 1, 1).repeat(4, 1, 1, 1)
    changed = solarize(images, torch.tensor([0.5, 0.0, 0.75, 1.1])).flatten(1)
    assert changed.tolist() == [[0.25, 0.5, 0.25], [0.75, 0.5, 0.25], [0.25, 0.5, 0.25], [0.25, 0.5, 0.75]]


def test_solarizing_with_a_probability() -> None:
    images = torch.ones(1000, 3, 1, 1)
    inverted = int((random_solarize(images, generator(), probability=0.2) == 0).flatten(1).all(1).sum())
    assert scipy.stats.binomtest(inverted, 1000, 0.2).pvalue > 1e-3
    assert torch.equal(random_solarize(images, generator(), probability=0), images)
    assert torch.equal(random_solarize(images, generator(), probability=1), 1 - images)
    below = torch.full((50, 3, 1, 1), 0.6)
    assert torch.equal(random_solarize(below, generator(), probability=1, threshold=0.7), below)


def test_a_blend_of_nothing_is_the_image() -> None:
    images = pictures(3)
    assert torch.equal(blend(images, torch.ones(3), torch.zeros(3), torch.zeros(3)), images)


@pytest.mark.parametrize("batch", [1, 3])
def test_jitter_keeps_shape_and_type_and_depends_on_nothing_but_image_and_generator(batch: int) -> None:
    strengths = {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2}
    images = pictures(batch, dtype=torch.float64)
    others = 1 - images
    others[-1] = images[-1]
    before = images.clone()
    first, second = (random_color_jitter(each, generator(5), **strengths) for each in (images, others))
    assert first.shape == images.shape
    assert first.dtype == torch.float64
    assert torch.equal(first[-1], second[-1])
    assert torch.equal(images, before), "the input is not written to"
