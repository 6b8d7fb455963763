"""Slow copies against the recurrence written out."""

from __future__ import annotations

import pytest
import torch

from curl_rl.memory import momentum_copy, move_towards


def test_a_copy_moves_by_the_recurrence_and_takes_no_gradient() -> None:
    online = torch.nn.Linear(3, 2).double()
    target = momentum_copy(online)
    assert not any(parameter.requires_grad for parameter in target.parameters())
    by_hand = online.weight.detach().clone()
    for step in range(5):
        with torch.no_grad():
            online.weight.add_(torch.full_like(online.weight, step + 1.0))
        move_towards(target.parameters(), online.parameters(), 0.3)
        by_hand = 0.7 * by_hand + 0.3 * online.weight.detach()
        assert torch.allclose(target.weight, by_hand, rtol=1e-12, atol=0)
    assert not torch.equal(target.weight, online.weight), "the copy shares no memory"


@pytest.mark.parametrize(("tau", "arrives"), [(0.0, False), (1.0, True)])
def test_the_limits_stand_still_and_copy(tau: float, arrives: bool) -> None:
    target, source = torch.zeros(3), torch.tensor([1.0, -2.0, 3.0])
    move_towards([target], [source], tau)
    assert torch.equal(target, source if arrives else torch.zeros(3))


def test_unequal_lists_are_refused() -> None:
    with pytest.raises(ValueError, match="2 targets cannot move towards 1 sources"):
        move_towards([torch.zeros(1), torch.zeros(1)], [torch.zeros(1)], 0.5)
