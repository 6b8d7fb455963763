"""Spearman's ρ against SciPy, and by hand."""

from __future__ import annotations

import pytest
import torch

from curl_rl.text.evaluation.agreement import mean_ranks, spearman
from helpers.random_tensors import draw


def test_equal_values_share_the_mean_of_their_ranks() -> None:
    assert mean_ranks(torch.tensor([5.0, 1.0, 5.0, 3.0, 5.0])).tolist() == [4, 1, 4, 2, 4]


def test_by_hand_without_ties() -> None:
    # ρ = 1 − 6 Σd² / (n (n² − 1)), with d = (0, −2, 1, 1).
    first, second = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([10.0, 40.0, 20.0, 30.0])
    assert spearman(first, second).item() == pytest.approx(1 - 6 * 6 / (4 * 15))


@pytest.mark.parametrize("levels", [3, 50, None])
def test_scipy_agrees_with_many_ties_and_with_none(levels: int | None) -> None:
    stats = pytest.importorskip("scipy.stats")
    first, second = draw(200), draw(200, seed=1) + 0.5 * draw(200)
    if levels is not None:
        first, second = (first * levels / 4).round(), (second * levels / 4).round()
    assert spearman(first, second).item() == pytest.approx(float(stats.spearmanr(first, second).statistic), abs=1e-12)


def test_only_the_order_counts() -> None:
    values = draw(30)
    assert spearman(values, values.exp()).item() == pytest.approx(1)
    assert spearman(values, -(values**3)).item() == pytest.approx(-1)


def test_a_constant_has_no_order() -> None:
    assert spearman(torch.zeros(5), draw(5)).isnan()


@pytest.mark.parametrize("sizes", [(1, 1), (3, 4)])
def test_sizes_are_checked(sizes: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="with N at least 2"):
        spearman(*(torch.zeros(size) for size in sizes))
