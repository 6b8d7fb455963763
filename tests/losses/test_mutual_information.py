"""Bounds on mutual information against loops over pairs, and against the losses that they are for a single place."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor

from curl_rl.losses import (
    PairScores,
    donsker_varadhan,
    info_nce,
    jensen_shannon,
    nt_logistic,
    place_accuracy,
    place_info_nce,
    place_scores,
    soft_clip,
)
from helpers.random_tensors import draw

QUERIES, PLACES, BATCH = 2, 3, 4
SCORES = 2 * draw(QUERIES, PLACES, BATCH, BATCH)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def cells(of_own: bool) -> list[float]:
    """The scores with places of the query's own sample, or of others."""
    found = product(range(QUERIES), range(PLACES), range(BATCH), range(BATCH))
    return [float(SCORES[q, p, i, j]) for q, p, i, j in found if (i == j) is of_own]


def against(same_place: bool) -> list[tuple[float, list[float]]]:
    """Each positive with its negatives."""
    found = []
    for q, p, i in product(range(QUERIES), range(PLACES), range(BATCH)):
        places = [p] if same_place else range(PLACES)
        negatives = [float(SCORES[q, other, i, j]) for other in places for j in range(BATCH) if j != i]
        found.append((float(SCORES[q, p, i, i]), negatives))
    return found


def pairs(scores: Tensor) -> PairScores:
    own = torch.eye(len(scores), dtype=torch.bool)
    return PairScores(scores.diagonal(), scores.masked_fill(own, -torch.inf))


def test_scores_are_inner_products_place_by_place() -> None:
    places, shared, own = draw(PLACES, BATCH, 5), draw(BATCH, 5, seed=1), draw(PLACES, BATCH, 5, seed=2)
    found = place_scores(shared, places), place_scores(own, places)
    for p, i, j in product(range(PLACES), range(BATCH), range(BATCH)):
        assert found[0][p, i, j].item() == pytest.approx(float(shared[i] @ places[p, j]), rel=1e-12)
        assert found[1][p, i, j].item() == pytest.approx(float(own[p, i] @ places[p, j]), rel=1e-12)


def test_jensen_shannon_by_hand() -> None:
    expected = mean([softplus(-s) for s in cells(of_own=True)]) + mean([softplus(s) for s in cells(of_own=False)])
    assert jensen_shannon(SCORES).item() == pytest.approx(expected, rel=1e-12)
    assert jensen_shannon(torch.zeros(2, 3, 3)).item() == pytest.approx(2 * math.log(2))


def test_donsker_varadhan_by_hand() -> None:
    expected = math.log(mean([math.exp(s) for s in cells(of_own=False)])) - mean(cells(of_own=True))
    assert donsker_varadhan(SCORES).item() == pytest.approx(expected, rel=1e-12)
    assert donsker_varadhan(torch.full((2, 3, 3), 900.0)).item() == pytest.approx(0, abs=1e-3)  # exp overflows


@pytest.mark.parametrize("same_place", [False, True])
def test_info_nce_and_accuracy_by_hand(same_place: bool) -> None:
    losses = [math.log1p(sum(math.exp(n - positive) for n in rest)) for positive, rest in against(same_place)]
    assert place_info_nce(SCORES, same_place=same_place).item() == pytest.approx(mean(losses), rel=1e-12)
    right = [float(positive > max(rest)) for positive, rest in against(same_place)]
    assert 0 < mean(right) < 1
    assert place_accuracy(SCORES, same_place=same_place).item() == pytest.approx(mean(right))


def test_one_place_gives_the_losses_without_places() -> None:
    scores = 3 * draw(1, BATCH, BATCH)
    assert jensen_shannon(scores).item() == pytest.approx(nt_logistic(pairs(scores[0]), 1.0).item(), rel=1e-12)
    for same_place in (False, True):
        found = place_info_nce(scores, same_place=same_place).item()
        assert found == pytest.approx(info_nce(scores[0]).item(), rel=1e-12)


@pytest.mark.parametrize("shift", [-40.0, 1000.0])
def test_a_softmax_does_not_feel_a_constant_in_all_scores(shift: float) -> None:
    """The released InfoNCE, which masks with −10, says 30.2 instead of 3.6 where all scores are less by 40."""
    for same_place in (False, True):
        plain, moved = (place_info_nce(scores, same_place=same_place).item() for scores in (SCORES, SCORES + shift))
        assert moved == pytest.approx(plain, rel=1e-9)
    assert donsker_varadhan(SCORES + shift).item() == pytest.approx(donsker_varadhan(SCORES).item(), rel=1e-9)


def test_clipped_scores_are_odd_bounded_and_unchanged_near_zero() -> None:
    scores = torch.tensor([-500.0, -20.0, -1e-3, 0.0, 1e-3, 20.0, 500.0], dtype=torch.float64)
    clipped = soft_clip(scores, 20.0)
    assert torch.equal(clipped, -clipped.flip(0))
    assert clipped.abs().max() <= 20
    assert clipped[4].item() == pytest.approx(1e-3, rel=1e-6)
    assert clipped[5].item() == pytest.approx(20 * math.tanh(1))


@pytest.mark.parametrize(
    "loss",
    [
        jensen_shannon,
        donsker_varadhan,
        lambda scores: place_info_nce(scores, same_place=True),
        lambda scores: place_info_nce(scores, same_place=False),
    ],
    ids=["jsd", "dv", "same place", "all places"],
)
def test_a_batch_of_one_is_refused(loss: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(ValueError, match=r"at least 2 samples in a batch \(batch_size\), got 1$"):
        loss(torch.zeros(PLACES, 1, 1))


def test_half_precision_is_widened_before_the_products() -> None:
    queries, places = (draw(*shape).bfloat16() for shape in ((BATCH, 64), (PLACES, BATCH, 64)))
    scores = place_scores(queries, places)
    assert scores.dtype == torch.float32
    assert torch.equal(scores, place_scores(queries.float(), places.float()))
