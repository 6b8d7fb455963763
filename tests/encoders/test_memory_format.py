"""Images in channels_last order against numpy's transposition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from curl_rl.encoders.memory_format import channels_last


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "shape", [(4, 9, 13, 7), (1, 3, 5, 5), (3, 1, 2, 9), (2, 7, 1, 1), (5, 16, 32, 33), (0, 3, 4, 4)]
)
def test_the_same_numbers_are_stored_with_their_channels_innermost(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    images = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    moved = channels_last(images)
    assert moved.dtype == dtype
    assert torch.equal(moved, images)
    assert moved.is_contiguous(memory_format=torch.channels_last)
    in_memory = np.ascontiguousarray(images.float().numpy().transpose(0, 2, 3, 1)).ravel()
    assert np.array_equal(moved.float().as_strided((moved.numel(),), (1,)).numpy(), in_memory)


def test_slices_of_images_are_reordered_too_and_none_is_copied_twice() -> None:
    whole = torch.randint(0, 256, (3, 6, 9, 8), dtype=torch.uint8)
    part = whole[:, 1:4, 2:7, 3:]
    moved = channels_last(part)
    assert torch.equal(moved, part)
    assert channels_last(moved) is moved
    moved.zero_()
    assert whole.any(), "the others are left as they are"
