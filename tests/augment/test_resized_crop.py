"""Random resized crops: pixels against Pillow, weights worked out by hand, windows against closed forms."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import scipy.stats
import torch
from PIL import Image

from curl_rl.augment import Windows, random_resized_crop, random_windows, resize_windows
from curl_rl.augment.resized_crop import _resize_matrix


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(batch: int, height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8, generator=generator(7))


def window_list(windows: Windows) -> list[tuple[int, ...]]:
    return [tuple(int(value) for value in window) for window in zip(*windows, strict=True)]


def test_shrinking_by_two_weighs_a_triangle_four_pixels_wide() -> None:
    # Output 0 has its center at 1.0 of the input, so its distances to pixels 0, 1, 2 are ½, ½, 1½; the reach is 2.
    matrix = _resize_matrix(torch.zeros(1), torch.full((1,), 4.0), 4, 2)[0]
    row = torch.tensor([0.75, 0.75, 0.25, 0.0]) / 1.75
    assert torch.allclose(matrix, torch.stack([row, row.flip(0)]))


def test_growing_by_two_is_plain_bilinear_and_repeats_the_border() -> None:
    matrix = _resize_matrix(torch.ones(1), torch.full((1,), 2.0), 4, 4)[0]
    expected = torch.tensor([[0, 1, 0, 0], [0, 0.75, 0.25, 0], [0, 0.25, 0.75, 0], [0, 0, 1, 0]])
    assert torch.allclose(matrix, expected)


@pytest.mark.parametrize(("height", "width", "size"), [(32, 32, 32), (40, 27, 8), (9, 14, 17), (21, 33, 1)])
def test_pixels_are_pillows(height: int, width: int, size: int) -> None:
    images = noise(12, height, width)
    windows = random_windows(12, height, width, generator(), scale=(0.1, 1.0))
    mirror = torch.arange(12) % 2 == 0
    resized = resize_windows(images, windows, size, mirror)
    assert resized.shape == (12, 3, size, size)
    assert resized.dtype == torch.float32
    for image, window, mirrored, result in zip(images, window_list(windows), mirror, resized, strict=True):
        top, left, rows, columns = window
        for channel in range(3):
            # Mode F holds floats, so Pillow does not round intermediate results.
            cut = Image.fromarray(image[channel, top : top + rows, left : left + columns].numpy().astype(np.float32))
            expected = np.asarray(cut.resize((size, size), Image.Resampling.BILINEAR)) / 255
            expected = expected[:, ::-1] if mirrored else expected
            np.testing.assert_allclose(result[channel].numpy(), expected, atol=2e-5)


def test_pixels_are_torchvisions(torchvision: ModuleType) -> None:
    from torchvision.transforms.functional import resized_crop

    images = noise(8, 30, 41)
    windows = random_windows(8, 30, 41, generator())
    for image, window, result in zip(images, window_list(windows), resize_windows(images, windows, 24), strict=True):
        expected = resized_crop(image.double() / 255, *window, [24, 24], antialias=True)
        assert (result - expected).abs().max() < 1e-5


def test_floating_point_images_are_taken_as_they_are_and_keep_their_type() -> None:
    images = noise(4, 12, 12)
    windows = random_windows(4, 12, 12, generator())
    double = resize_windows(images.double() / 255, windows, 8)
    assert double.dtype == torch.float64
    assert torch.allclose(double.float(), resize_windows(images, windows, 8), atol=1e-6)


def test_white_stays_white_and_within_range() -> None:
    images = torch.full((50, 3, 33, 31), 255, dtype=torch.uint8)
    resized = random_resized_crop(images, 20, generator())
    assert resized.max() <= 1
    assert resized.min() > 1 - 1e-5


def test_the_whole_image_at_its_own_size_is_the_image() -> None:
    images = noise(3, 16, 16)
    whole = random_resized_crop(images, 16, generator(), scale=(1, 1), ratio=(1, 1), mirror=0)
    assert torch.allclose(whole, images / 255, atol=1e-7)
    mirrored = random_resized_crop(images, 16, generator(), scale=(1, 1), ratio=(1, 1), mirror=1)
    assert torch.allclose(mirrored, images.flip(3) / 255, atol=1e-7)


def test_half_of_the_images_are_mirrored() -> None:
    images = torch.arange(4, dtype=torch.uint8).repeat(2000, 3, 4, 1)
    views = random_resized_crop(images, 4, generator(), scale=(1, 1), ratio=(1, 1))
    mirrored = int((views[:, 0, 0, 0] > views[:, 0, 0, 3]).sum())
    assert scipy.stats.binomtest(mirrored, 2000, 0.5).pvalue > 1e-3


@pytest.mark.parametrize(
    ("height", "width", "scale"),
    [(32, 32, (0.08, 1.0)), (240, 320, (0.2, 1.0)), (20, 60, (0.5, 1.0))],  # the last often finds no window that fits
)
def test_windows_are_distributed_as_torchvisions(
    torchvision: ModuleType, height: int, width: int, scale: tuple[float, float]
) -> None:
    from torchvision.transforms import RandomResizedCrop

    torch.manual_seed(0)
    image = torch.empty(1, height, width)
    theirs = np.array([RandomResizedCrop.get_params(image, list(scale), [3 / 4, 4 / 3]) for _ in range(3000)]).T
    ours = torch.stack(random_windows(30_000, height, width, generator(), scale=scale)).numpy()
    for name, expected, drawn in zip(Windows._fields, theirs, ours, strict=True):
        assert scipy.stats.ks_2samp(expected, drawn).pvalue > 1e-3, name
    # Jointly: a place that does not match its window would show here.
    for a, b in ((0, 2), (1, 3), (2, 3)):
        assert scipy.stats.ks_2samp(theirs[a] + theirs[b], ours[a] + ours[b]).pvalue > 1e-3, (a, b)


def test_area_is_uniform_ratio_log_uniform_and_place_uniform() -> None:
    # The image is so large and the window so small that rounding and rejections do not matter.
    top, left, height, width = (
        value.double().numpy()
        for value in random_windows(5000, 4000, 4000, generator(), scale=(0.1, 0.4), ratio=(0.5, 2))
    )
    share, log_ratio = height * width / 4000**2, np.log(width / height)
    assert scipy.stats.kstest(share, scipy.stats.uniform(0.1, 0.3).cdf).pvalue > 1e-3
    assert scipy.stats.kstest(log_ratio, scipy.stats.uniform(-np.log(2), 2 * np.log(2)).cdf).pvalue > 1e-3
    assert scipy.stats.kstest(top / (4000 - height), "uniform").pvalue > 1e-3
    assert scipy.stats.kstest(left / (4000 - width), "uniform").pvalue > 1e-3
    for a, b in ((share, log_ratio), (top / (4000 - height), left / (4000 - width)), (share, top / (4000 - height))):
        assert abs(scipy.stats.spearmanr(a, b).statistic) < 0.06


def test_sides_are_rounded_and_each_place_is_as_likely_as_any_other() -> None:
    # A square of 2.6 pixels is rounded to 3, which has 3·2 places in a 5×4 image.
    top, left, height, width = random_windows(6000, 5, 4, generator(), scale=(0.338, 0.338), ratio=(1, 1))
    assert (height == 3).all()
    assert (width == 3).all()
    counts = np.zeros((3, 2))
    np.add.at(counts, (top.long().numpy(), left.long().numpy()), 1)
    assert scipy.stats.chisquare(counts.ravel()).pvalue > 1e-3


def test_the_first_window_that_fits_is_taken_not_the_best() -> None:
    # With areas from nearly 0 to twice the image and no ratio, the windows that fit have uniform areas up to 1.
    _, _, height, width = random_windows(5000, 1000, 1000, generator(), scale=(1e-4, 2.0), ratio=(1, 1))
    share = (height * width / 1000**2).double().numpy()
    found = share[share < 1]
    assert scipy.stats.kstest(found, "uniform").pvalue > 1e-3


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(10, 40, (0, 13, 10, 13)), (40, 10, (13, 0, 13, 10)), (4, 5, (0, 0, 4, 5))],
)
def test_where_nothing_fits_the_middle_is_taken(height: int, width: int, expected: tuple[int, ...]) -> None:
    windows = random_windows(5, height, width, generator(), scale=(4.0, 5.0))
    assert set(window_list(windows)) == {expected}


def test_windows_lie_within_the_image_down_to_one_pixel() -> None:
    top, left, height, width = random_windows(20_000, 5, 3, generator(), scale=(0.01, 1.0))
    assert (height.min(), width.min()) == (1, 1)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height).max() == 5
    assert (left + width).max() == 3


def test_an_image_does_not_depend_on_the_others_of_its_batch() -> None:
    images = noise(5, 15, 18)
    others = noise(5, 15, 18).flip(0)
    others[2] = images[2]
    first, second = (random_resized_crop(batch, 10, generator(3)) for batch in (images, others))
    assert torch.equal(first[2], second[2])
    assert not torch.equal(first[1], second[1])
    assert torch.equal(first, random_resized_crop(images, 10, generator(3)))
