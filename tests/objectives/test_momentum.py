"""Slow copies against the recurrence written out, the ring against a list."""

from __future__ import annotations

import copy
import math
from collections import deque

import pytest
import torch

from curl_rl.objectives.banks import Ring
from curl_rl.objectives.momentum import cosine_momentum, momentum_buffers, momentum_copy, move_towards


@pytest.mark.parametrize("tau", [0.3, torch.tensor(0.3, dtype=torch.float64)], ids=["number", "tensor"])
def test_a_copy_moves_by_the_recurrence_and_takes_no_gradient(tau: float | torch.Tensor) -> None:
    online = torch.nn.Linear(3, 2).double()
    target = momentum_copy(online)
    assert not any(parameter.requires_grad for parameter in target.parameters())
    by_hand = online.weight.detach().clone()
    for step in range(5):
        with torch.no_grad():
            online.weight.add_(torch.full_like(online.weight, step + 1.0))
        move_towards(target.parameters(), online.parameters(), tau)
        by_hand = 0.7 * by_hand + 0.3 * online.weight.detach()
        assert torch.allclose(target.weight, by_hand, rtol=1e-12, atol=0)
    assert not torch.equal(target.weight, online.weight), "the copy shares no memory"


@pytest.mark.parametrize("arrives", [False, True])
@pytest.mark.parametrize("kind", [float, torch.tensor])
def test_the_limits_stand_still_and_copy(arrives: bool, kind: type) -> None:
    tau = kind(float(arrives))
    target, source = torch.zeros(3), torch.tensor([1.0, -2.0, 3.0])
    move_towards([target], [source], tau)
    assert torch.equal(target, source if arrives else torch.zeros(3))


def test_unequal_lists_are_refused() -> None:
    with pytest.raises(ValueError, match="2 targets cannot move towards 1 sources"):
        move_towards([torch.zeros(1), torch.zeros(1)], [torch.zeros(1)], 0.5)


def test_weights_held_as_buffers_compute_the_same_and_are_no_parameters() -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2, bias=False))
    slow = momentum_buffers(module)
    x = torch.randn(5, 3)
    assert torch.equal(slow(x), module(x))
    assert not slow(x).requires_grad
    assert list(slow.parameters()) == []
    assert list(slow.state_dict()) == list(module.state_dict()), "saved under the same names"
    move_towards(slow.buffers(), (torch.zeros_like(parameter) for parameter in module.parameters()), 1.0)
    assert slow(x).abs().max() == 0
    assert module(x).abs().max() > 0, "the copy shares no memory"


def test_a_cosine_momentum_grows_from_its_start_to_one() -> None:
    progress = torch.tensor([0.0, 1 / 3, 0.5, 1.0], dtype=torch.float64)
    # cos(π/3) = ½, so that a quarter of the way is gone at a third of the time.
    expected = [0.9, 0.925, 0.95, 1.0]
    assert cosine_momentum(0.9, progress).tolist() == pytest.approx(expected, rel=1e-12)


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
