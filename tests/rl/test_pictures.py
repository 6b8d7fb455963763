"""The picture of crops, pixel for pixel: each color stands for one frame, and its place is counted by hand."""

from __future__ import annotations

import torch
from torch import Tensor

from curl_rl.objectives import ViewSpec
from curl_rl.rl.agent import UpdateInputs
from curl_rl.rl.pictures import crops_picture
from curl_rl.rl.replay import Batch


def stack(colors: list[int], side: int, channels: int = 3) -> Tensor:
    """``(len(colors)·channels, side, side)``: frames of one shade each."""
    return torch.cat([torch.full((channels, side, side), color, dtype=torch.uint8) for color in colors])


def picture(observations: list[Tensor], queries: list[Tensor], keys: list[Tensor], **named: int) -> Tensor:
    none = torch.zeros(len(observations), 1)
    seen = torch.stack(observations)
    batch = Batch(seen, none, none, none, seen, ())
    query = torch.stack(queries)
    inputs = UpdateInputs(query, none, none, none, query, {ViewSpec(1): torch.stack(keys)}, none, none)
    return crops_picture(batch, inputs, **named)


def test_one_row_holds_the_stack_then_the_query_then_the_key() -> None:
    one = picture([stack([10, 20], 4)], [stack([30, 40], 3)], [stack([50, 60], 3)])
    # Frames of 4, 4, then 3, 3, then 3, 3 pixels, a gap of 2 after each, three more gaps after each panel, and one gap
    # below each row. Crops are aligned to the top.
    expected = torch.zeros(3, 4 + 2, (4 + 2) * 2 + 6 + ((3 + 2) * 2 + 6) * 2, dtype=torch.uint8)
    expected[:, 0:4, 0:4] = 10
    expected[:, 0:4, 6:10] = 20
    expected[:, 0:3, 18:21] = 30
    expected[:, 0:3, 23:26] = 40
    expected[:, 0:3, 34:37] = 50
    expected[:, 0:3, 39:42] = 60
    assert one.dtype == torch.uint8
    assert torch.equal(one, expected)


def test_colors_are_preserved() -> None:
    frame = torch.zeros(3, 2, 2, dtype=torch.uint8)
    frame[0], frame[1], frame[2] = 1, 2, 3
    one = picture([frame], [frame], [frame])
    assert one[:, 0, 0].tolist() == [1, 2, 3]


def test_samples_are_stacked_vertically_and_no_more_than_requested() -> None:
    shades = [stack([10 * (i + 1)], 2) for i in range(6)]
    assert picture(shades, shades, shades).shape[1] == 4 * (2 + 2)
    two = picture(shades, shades, shades, samples=2)
    assert two[0, :, 0].tolist() == [10, 10, 0, 0, 20, 20, 0, 0]
    assert picture(shades[:1], shades[:1], shades[:1]).shape[1] == 4


def test_frames_that_are_not_rgb_are_gray() -> None:
    one = picture([stack([10, 20], 2, channels=1)], [stack([30, 40], 2, channels=1)], [stack([50, 60], 2, channels=1)])
    assert one.shape[0] == 3
    assert one[:, 0, 0].tolist() == [10] * 3
    assert one[:, 0, 4].tolist() == [20] * 3
