"""Crops against plain slicing, and their offsets against the uniform distribution."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from curl_rl.augment import center_crop, crop, random_crop, random_crops
from curl_rl.augment.crops import _gather_rows, _gather_windows


def coordinates(batch: int, height: int, width: int) -> torch.Tensor:
    """Images whose pixels encode image, row and column: (B, 3, H, W) int32."""
    grid = np.stack(np.broadcast_arrays(*np.ogrid[:batch, :height, :width]))
    return torch.from_numpy(np.ascontiguousarray(grid.transpose(1, 0, 2, 3))).int()


@pytest.mark.parametrize(("batch", "height", "width", "size"), [(5, 9, 7, 4), (1, 5, 5, 5), (3, 6, 8, 1)])
def test_crop_is_a_slice_of_each_image(batch: int, height: int, width: int, size: int) -> None:
    images = coordinates(batch, height, width)
    rng = np.random.default_rng(0)
    top = torch.from_numpy(rng.integers(0, height - size + 1, batch))
    left = torch.from_numpy(rng.integers(0, width - size + 1, batch))
    cropped = crop(images, size, top, left)
    assert cropped.shape == (batch, 3, size, size)
    for i, (y, x) in enumerate(zip(top.tolist(), left.tolist(), strict=True)):
        assert torch.equal(cropped[i], images[i, :, y : y + size, x : x + size])


def test_both_ways_of_taking_windows_agree() -> None:
    images = coordinates(6, 9, 7)
    rng = np.random.default_rng(1)
    offsets = [torch.from_numpy(rng.integers(0, span - 4, 6)) for span in (9, 7)]
    (copied,) = _gather_rows(images, 5, [(offsets[0], offsets[1])])
    assert torch.equal(copied, _gather_windows(images, 5, *offsets))
    assert crop(images, 5, *offsets).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "lay_out",
    [
        lambda images: images[1:],
        lambda images: images[:, 1:2],
        lambda images: images[:, :, 2:, 1:],
        lambda images: images.transpose(2, 3),
        lambda images: images.to(torch.bfloat16, memory_format=torch.channels_last)[::2],
        lambda images: images[:0],
    ],
    ids=["offset", "one channel", "corner", "transposed", "channels_last", "empty"],
)
def test_images_may_lie_in_memory_in_any_way(lay_out: Callable[[torch.Tensor], torch.Tensor]) -> None:
    images = lay_out(coordinates(6, 9, 11))
    rng = np.random.default_rng(2)
    top, left = (torch.from_numpy(rng.integers(0, span - 4, len(images))) for span in images.shape[2:])
    cropped = crop(images, 5, top, left)
    assert cropped.shape == (*images.shape[:2], 5, 5)
    for i, (y, x) in enumerate(zip(top.tolist(), left.tolist(), strict=True)):
        assert torch.equal(cropped[i], images[i, :, y : y + 5, x : x + 5])


@pytest.mark.parametrize(("top", "left"), [(5, 0), (0, 3), (-1, 0), (0, -1)])
def test_a_window_outside_of_its_image_is_refused(top: int, left: int) -> None:
    images = coordinates(2, 9, 7)
    for kind in (images, images.float().requires_grad_()):
        with pytest.raises(ValueError, match="a window of 5×5 extends beyond its image of 9×7"):
            crop(kind, 5, torch.tensor([0, top]), torch.tensor([0, left]))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_gpu_takes_the_same_windows() -> None:
    images = coordinates(6, 9, 7)
    rng = np.random.default_rng(1)
    offsets = [torch.from_numpy(rng.integers(0, span - 4, 6)) for span in (9, 7)]
    on_gpu = crop(images.cuda(), 5, *(offset.cuda() for offset in offsets))
    assert torch.equal(on_gpu.cpu(), crop(images, 5, *offsets))
    assert on_gpu.is_contiguous(memory_format=torch.channels_last)


def draw_offsets(*, every_offset: bool) -> tuple[np.ndarray, np.ndarray]:
    images = coordinates(4000, 7, 6)
    windows = random_crop(images, 4, torch.Generator().manual_seed(0), every_offset=every_offset)
    assert torch.equal(windows[:, 0, 0, 0], torch.arange(4000).int()), "each window is of its own image"
    return windows[:, 1, 0, 0].numpy(), windows[:, 2, 0, 0].numpy()


def test_random_crop_draws_every_offset_equally_often_and_independently() -> None:
    top, left = draw_offsets(every_offset=True)
    counts = np.zeros((4, 3))
    np.add.at(counts, (top, left), 1)
    expected = 4000 / 12
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 31.3  # the 99.9 % point of 11 degrees of freedom


def test_the_released_codes_crop_never_reaches_the_last_row_and_column() -> None:
    top, left = draw_offsets(every_offset=False)
    assert set(top) == {0, 1, 2}
    assert set(left) == {0, 1}


def test_every_frame_of_a_stack_is_cropped_at_the_same_place() -> None:
    frame = torch.randint(0, 256, (8, 3, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    windows = random_crop(frame.repeat(1, 3, 1, 1), 8, torch.Generator().manual_seed(2))
    assert torch.equal(windows[:, :3], windows[:, 3:6])
    assert torch.equal(windows[:, :3], windows[:, 6:])


def test_crops_are_a_function_of_the_generator_and_leave_the_global_one_alone() -> None:
    images = coordinates(50, 9, 9)
    before = torch.get_rng_state()
    first, second = (random_crop(images, 5, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("together", [0.5, 1, 2, 3, 7, 8])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_several_crops_of_the_same_images_are_those_that_are_drawn_one_by_one(
    together: float, memory_format: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = coordinates(7, 9, 8).contiguous(memory_format=memory_format)
    monkeypatch.setattr("curl_rl.augment.crops._TOGETHER", int(together * images[:1].nbytes))
    at_once = random_crops(images, 5, torch.Generator().manual_seed(4), 3)
    generator = torch.Generator().manual_seed(4)
    for windows in at_once:
        top, left = (torch.randint(spare, (7,), generator=generator) for spare in (5, 4))
        expected = [images[i, :, y : y + 5, x : x + 5] for i, (y, x) in enumerate(zip(top, left, strict=True))]
        assert torch.equal(windows, torch.stack(expected))
        assert windows.is_contiguous(memory_format=torch.channels_last)


def test_a_gradient_flows_back_to_the_pixels_inside_the_window_and_no_others() -> None:
    images = torch.rand(2, 3, 6, 7, requires_grad=True)
    crop(images, 4, torch.tensor([0, 2]), torch.tensor([3, 1])).sum().backward()
    expected = torch.zeros(2, 3, 6, 7)
    expected[0, :, 0:4, 3:7] = expected[1, :, 2:6, 1:5] = 1
    assert torch.equal(images.grad, expected)


def test_more_images_than_are_cropped_together_are_all_cropped() -> None:
    images = torch.randint(0, 256, (67, 9, 100, 101), dtype=torch.uint8)  # several times the size of a cache
    first, second = random_crops(images, 84, torch.Generator().manual_seed(5), 2)
    generator = torch.Generator().manual_seed(5)
    for windows in (first, second):
        top, left = (torch.randint(spare, (67,), generator=generator) for spare in (17, 18))
        for i, (y, x) in enumerate(zip(top, left, strict=True)):
            assert torch.equal(windows[i], images[i, :, y : y + 84, x : x + 84])


@pytest.mark.parametrize(("side", "size", "first"), [(10, 6, 2), (10, 7, 1), (9, 4, 2), (5, 5, 0)])
def test_center_crop_leaves_equal_margins(side: int, size: int, first: int) -> None:
    window = center_crop(coordinates(2, side, side), size)
    assert window.shape == (2, 3, size, size)
    assert window[0, 1, :, 0].tolist() == list(range(first, first + size))
    assert window[0, 2, 0].tolist() == list(range(first, first + size))


@pytest.mark.parametrize("size", [0, 8])
def test_a_window_that_does_not_fit_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"crop of {size}×{size} does not fit in an image of 9×7"):
        center_crop(torch.zeros(1, 3, 9, 7), size)
    with pytest.raises(ValueError, match="does not fit"):
        random_crop(torch.zeros(1, 3, 9, 7), size, torch.Generator())
