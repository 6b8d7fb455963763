"""The ring against a list."""

from __future__ import annotations

import copy
import math
from collections import deque

import pytest
import torch

from curl_rl.objectives.banks import Ring


@pytest.mark.parametrize("sizes", [[3, 3, 3, 3], [7], [2, 5, 4, 1, 7, 3], [6, 6, 6]])
def test_a_ring_holds_the_newest_at_any_sizes(sizes: list[int]) -> None:
    ring, newest, number = Ring(7, 2), deque[float](maxlen=7), 0.0
    assert not ring.valid.any()
    for size in sizes:
        batch = torch.arange(number, number + size)
        number += size
        ring.push(torch.stack([batch, -batch], 1))
        newest.extend(batch.tolist())
        held = ring.embeddings[ring.valid]
        assert sorted(held[:, 0].tolist()) == list(newest)
        assert torch.equal(held[:, 1], -held[:, 0])


def test_a_ring_takes_no_gradient_and_no_more_than_it_holds() -> None:
    ring = Ring(3, 2)
    ring.push(torch.ones(2, 2, requires_grad=True))
    assert not ring.embeddings.requires_grad
    with pytest.raises(ValueError, match="a ring of 3 embeddings cannot take 4 at once"):
        ring.push(torch.zeros(4, 2))


@pytest.mark.parametrize(("size", "dim"), [(0, 2), (2, 0)])
def test_a_ring_without_room_is_refused(size: int, dim: int) -> None:
    with pytest.raises(ValueError, match=f"got {size} and {dim}"):
        Ring(size, dim)


def test_a_ring_goes_on_where_it_was_saved() -> None:
    ring = Ring(5, 1)
    ring.push(torch.tensor([[1.0], [2.0], [3.0]]))
    other = Ring(5, 1)
    other.load_state_dict(copy.deepcopy(ring.state_dict()))
    for one in (ring, other):
        one.push(torch.tensor([[4.0], [5.0], [6.0]]))
    assert torch.equal(ring.embeddings, other.embeddings)
    assert ring.embeddings.sum().item() == math.fsum([2, 3, 4, 5, 6])
