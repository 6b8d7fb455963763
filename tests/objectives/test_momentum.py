"""Slow copies against the recurrence written out."""

from __future__ import annotations

import pytest
import torch

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


def test_weights_held_as_buffers_compute_the_same_and_are_not_parameters() -> None:
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
    # cos(π/3) = ½, so a quarter of the way is done after a third of the time.
    expected = [0.9, 0.925, 0.95, 1.0]
    assert cosine_momentum(0.9, progress).tolist() == pytest.approx(expected, rel=1e-12)
