"""Gaussian blur against scipy and torchvision."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch

from curl_rl.augment import gaussian_blur, random_gaussian_blur


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(batch: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(batch, 3, height, width, generator=generator(1), dtype=torch.float64)


@pytest.mark.parametrize(("height", "width", "radius"), [(12, 9, 1), (11, 16, 5), (4, 4, 3)])
def test_blur_is_scipys(height: int, width: int, radius: int) -> None:
    images = noise(4, height, width)
    sigmas = torch.tensor([0.1, 0.5, 1.3, 4.0], dtype=torch.float64)
    for image, sigma, result in zip(images, sigmas.tolist(), gaussian_blur(images, sigmas, radius), strict=True):
        # scipy's mirror mode does not repeat the pixel at the border
        expected = scipy.ndimage.gaussian_filter(image.numpy(), sigma, mode="mirror", radius=radius, axes=(1, 2))
        np.testing.assert_allclose(result.numpy(), expected, atol=1e-8)


def test_blur_is_torchvisions(torchvision: ModuleType) -> None:
    from torchvision.transforms.functional import gaussian_blur as theirs

    images = noise(3, 10, 13).float()
    sigmas = torch.tensor([0.2, 1.0, 2.0])
    for image, sigma, result in zip(images, sigmas.tolist(), gaussian_blur(images, sigmas, 3), strict=True):
        assert (result - theirs(image, [7, 7], [sigma, sigma])).abs().max() < 1e-6


def test_a_spot_becomes_the_products_of_its_kernel() -> None:
    spot = torch.zeros(1, 1, 5, 5, dtype=torch.float64)
    spot[0, 0, 2, 2] = 1
    side = np.exp(-0.5 / 0.8**2)
    kernel = np.array([0, side, 1, side, 0]) / (1 + 2 * side)
    blurred = gaussian_blur(spot, torch.tensor([0.8], dtype=torch.float64), 1)[0, 0]
    np.testing.assert_allclose(blurred.numpy(), np.outer(kernel, kernel), atol=1e-15)


def test_no_width_is_no_blur_at_all() -> None:
    images = noise(2, 8, 8).float()
    assert torch.equal(gaussian_blur(images, torch.zeros(2), 3), images)


def test_sigma_is_uniform_and_applied_with_the_probability() -> None:
    # A kernel of three pixels reveals its sigma: side / middle = exp(−½ / sigma²).
    spot = torch.zeros(2000, 1, 5, 5, dtype=torch.float64)
    spot[..., 2, 2] = 1
    blurred = random_gaussian_blur(spot, generator(), radius=1, sigma=(0.5, 2.0), probability=0.5)
    middle, side = blurred[:, 0, 2, 2].numpy(), blurred[:, 0, 2, 1].numpy()
    applied = side > 0
    assert scipy.stats.binomtest(int(applied.sum()), 2000, 0.5).pvalue > 1e-3
    sigma = np.sqrt(-0.5 / np.log(side[applied] / middle[applied]))
    assert scipy.stats.kstest(sigma, scipy.stats.uniform(0.5, 1.5).cdf).pvalue > 1e-3
    for probability, expected in ((0.0, 0), (1.0, 2000)):
        blurred = random_gaussian_blur(spot, generator(), radius=1, sigma=(0.5, 2.0), probability=probability)
        assert int((blurred[:, 0, 2, 1] > 0).sum()) == expected


def test_products_meet_no_subnormal_numbers() -> None:
    # exp(−½ · 4² / 0.3²) is about 1e-39, on which CPUs multiply many times slower.
    spot = torch.zeros(1, 1, 9, 9)
    spot[..., 4, 4] = 1
    blurred = gaussian_blur(spot, torch.tensor([0.3]), 4)
    assert blurred[blurred > 0].min() > torch.finfo(torch.float32).tiny


@pytest.mark.parametrize("radius", [-1, 6])
def test_a_radius_with_nothing_to_reflect_is_refused(radius: int) -> None:
    with pytest.raises(ValueError, match=f"images must be larger than the blur's radius of {radius}, got 9×6"):
        gaussian_blur(noise(1, 9, 6), torch.ones(1), radius)
