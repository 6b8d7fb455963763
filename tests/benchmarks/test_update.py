"""What the convolutions of an update, the floor of its time, are said to compute and to move."""

from __future__ import annotations

import pytest
import torch

from benchmarks.update import floor

# The paper's encoder on 9×84×84: maps of 41, 39, 37 and 35, 32 channels each, 3×3 kernels. By hand, in multiplications:
FORWARD = [41**2 * 32 * 9 * 9, *(side**2 * 32 * 32 * 9 for side in (39, 37, 35))]
PIXELS = 9 * 84**2
MAPS = [32 * side**2 for side in (41, 39, 37, 35)]


@pytest.mark.parametrize(("update", "passes", "learned"), [("exact", 5, 2), ("joint", 4, 1)])
def test_the_floor_counts_every_convolution_once(update: str, passes: int, learned: int) -> None:
    work = floor(torch.device("cpu"), 2, "float32", update)
    # Backwards each costs two of the forward ones, the first only one: nobody wants the pixels' gradient.
    multiplications = passes * sum(FORWARD) + learned * (2 * sum(FORWARD) - FORWARD[0])
    assert work.flops == 2 * 2 * multiplications
    assert work.flops == 2 * {"exact": 743_629_248, "joint": 498_657_600}[update]
    # Forwards each layer reads its input and writes its map; backwards it reads both the input and the map's gradient,
    # and all but the first write the input's.
    inputs = [PIXELS, *MAPS[:-1]]
    numbers = (passes + learned) * (sum(inputs) + sum(MAPS)) + learned * sum(MAPS[:-1])
    assert work.bytes == 2 * 4 * numbers
    assert floor(torch.device("cpu"), 2, "bfloat16", update).bytes == 2 * 2 * numbers
