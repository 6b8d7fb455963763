"""Schedules against known values, and against PyTorch's cosine."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from curl_rl.optim.schedules import scaled_learning_rate, set_learning_rates, warmup_cosine


def test_known_points_of_warmup_and_cosine() -> None:
    shares = [warmup_cosine(step, warmup_steps=4, total_steps=10) for step in range(12)]
    half = math.sqrt(3) / 2
    expected = [0, 0.25, 0.5, 0.75, 1, (1 + half) / 2, 0.75, 0.5, 0.25, (1 - half) / 2, 0, 0]
    assert shares == pytest.approx(expected, abs=1e-15)
    assert all(isinstance(share, float) for share in shares)


def test_without_warmup_it_is_pytorchs_cosine() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 7)
    for step in range(7):
        assert warmup_cosine(step, 0, 7) == pytest.approx(scheduler.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        scheduler.step()


def test_a_tensor_of_steps_gives_the_tensor_of_shares() -> None:
    steps = torch.arange(12)
    shares = warmup_cosine(steps, 4, 10)
    assert shares.tolist() == pytest.approx([warmup_cosine(step, 4, 10) for step in range(12)], abs=1e-6)
    assert warmup_cosine(torch.tensor(2.0, dtype=torch.float64), 4, 10).dtype == torch.float64
    assert warmup_cosine(torch.empty(3, device="meta"), 4, 10).shape == (3,), "no number is asked of the device"


@pytest.mark.parametrize(("warmup", "total"), [(-1, 10), (10, 10), (0, 0)])
def test_a_warmup_that_does_not_fit_is_refused(warmup: int, total: int) -> None:
    with pytest.raises(ValueError, match=f"got {warmup} of {total} steps"):
        warmup_cosine(0, warmup, total)


def test_rates_of_the_simclr_paper() -> None:
    assert scaled_learning_rate(0.3, 4096, "linear") == pytest.approx(4.8)
    assert scaled_learning_rate(0.075, 4096, "sqrt") == pytest.approx(4.8)
    assert scaled_learning_rate(0.075, 256, "sqrt") == pytest.approx(1.2)
    assert scaled_learning_rate(0.03, 512, "linear") == pytest.approx(0.06)
    assert scaled_learning_rate(0.03, 512, "none") == 0.03


def test_impossible_scalings_are_refused() -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        scaled_learning_rate(0.1, 0, "none")
    with pytest.raises(ValueError, match="scaling must be none, linear or sqrt, got 'cubic'"):
        scaled_learning_rate(0.1, 1, "cubic")  # type: ignore[arg-type]


def test_groups_follow_the_share_of_their_own_rate_and_fixed_ones_do_not() -> None:
    weights = [nn.Parameter(torch.zeros(1)) for _ in range(3)]
    groups = [{"params": weights[0]}, {"params": weights[1], "lr": 4.0}, {"params": weights[2], "fixed_lr": True}]
    optimizer = torch.optim.SGD(groups, lr=2.0)
    for share in (0.5, 0.0, 0.25):
        set_learning_rates(optimizer, share)
        assert [group["lr"] for group in optimizer.param_groups] == [2 * share, 4 * share, 2.0]


def test_the_first_rate_survives_the_state_dict() -> None:
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=2.0)
    set_learning_rates(optimizer, 0.0)
    resumed = torch.optim.SGD([weight], lr=2.0)
    resumed.load_state_dict(optimizer.state_dict())
    set_learning_rates(resumed, 0.5)
    assert resumed.param_groups[0]["lr"] == 1.0


def test_a_rate_that_is_a_tensor_changes_in_place() -> None:
    rate = torch.tensor(2.0)
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=rate)
    for share in (0.5, 0.25):
        set_learning_rates(optimizer, share)
        assert optimizer.param_groups[0]["lr"].item() == 2 * share
    assert optimizer.param_groups[0]["lr"] is rate
