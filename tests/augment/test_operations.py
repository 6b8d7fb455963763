"""The policies' operations: those that RandAugment does not have, and images that drew different ones side by side."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from curl_rl.augment import operations
from curl_rl.augment.operations import GRAY, OPERATIONS, apply_operations


def pictures(batch: int, height: int = 24, width: int = 30) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).integers(0, 256, (batch, 3, height, width), dtype=np.uint8))


def apply(images: torch.Tensor, name: str, strength: float, place: torch.Tensor | None = None) -> torch.Tensor:
    drawn = torch.full((len(images),), OPERATIONS.index(name))
    return apply_operations(images / 255, drawn, torch.full((len(images),), strength), place)


def test_inverting_is_pillows() -> None:
    images = pictures(2)
    expected = [np.asarray(ImageOps.invert(Image.fromarray(image.permute(1, 2, 0).numpy()))) for image in images]
    assert torch.allclose(apply(images, "invert", 0), torch.from_numpy(np.stack(expected)).permute(0, 3, 1, 2) / 255)


@pytest.mark.parametrize("bits", [8, 7, 6, 5, 4])
def test_posterizing_has_its_strength_per_image(bits: int) -> None:
    images = pictures(2)
    first = [np.asarray(ImageOps.posterize(Image.fromarray(images[0].permute(1, 2, 0).numpy()), bits))]
    expected = torch.from_numpy(np.stack(first)).permute(0, 3, 1, 2) / 255
    drawn = torch.full((2,), OPERATIONS.index("posterize"))
    mixed = apply_operations(images / 255, drawn, torch.tensor([(8 - bits) / 4, 1.0]))
    assert torch.allclose(mixed[:1], expected)
    assert torch.allclose(mixed[1:], apply(images[1:], "posterize", 1))


def test_cutout_covers_a_square_around_its_center_with_gray() -> None:
    images = pictures(1, 32, 40)
    place = torch.tensor([[0.25, 0.5]])  # row 8, column 20
    expected = images / 255
    expected[:, :, 8 - 3 : 8 + 3, 20 - 3 : 20 + 3] = GRAY
    assert torch.equal(apply(images, "cutout", 0.3, place), expected)
    middle = images / 255
    middle[:, :, 6:26, 10:30] = GRAY  # 20 of 32 pixels
    assert torch.equal(apply(images, "cutout", -1.0), middle)


def test_the_part_of_cutouts_square_outside_the_image_is_lost() -> None:
    images = pictures(1, 32, 32)
    expected = images / 255
    expected[:, :, :10, 21:] = GRAY  # around row 0 and column 31
    assert torch.equal(apply(images, "cutout", 1.0, torch.tensor([[0.0, 0.999]])), expected)


def test_translations_are_rounded_towards_zero_however_the_product_rounds() -> None:
    images = pictures(1, 4, 331)  # a level of 1/9 is 16.67 pixels; the strongest shift is a whole number, 150
    drawn = torch.tensor([OPERATIONS.index("translate_x")])
    for level in range(10):
        moved = 150 * level // 9
        expected = torch.zeros(1, 3, 4, 331)
        expected[..., moved:] = images[..., : 331 - moved] / 255
        assert torch.equal(apply_operations(images / 255, drawn, torch.tensor([level / 9])), expected), level


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (17, 12), (32, 32)])
def test_those_that_drew_an_operation_get_what_the_whole_batch_would(size: tuple[int, int]) -> None:
    images = pictures(5 * len(OPERATIONS), *size) / 255
    generator = torch.Generator().manual_seed(0)
    drawn = operations._Drawn(
        torch.arange(len(OPERATIONS)).repeat(5)[torch.randperm(len(images), generator=generator)],
        torch.rand(len(images), generator=generator) * 2 - 1,
        torch.rand(len(images), 2, generator=generator),
    )
    subsets, full = (apply_(images, drawn) for apply_ in (operations._in_subsets, operations._in_full))
    assert torch.allclose(subsets, full, atol=1e-6)
    identity = drawn.operation == 0
    assert torch.equal(subsets[identity], images[identity])


def test_every_operation_is_in_one_family_beside_its_neighbors() -> None:
    assert sum(operations._FAMILIES, ()) == OPERATIONS
