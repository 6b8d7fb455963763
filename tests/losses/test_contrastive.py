"""Contrastive losses against numbers worked out by hand, pairs enumerated, closed forms and finite differences."""

from __future__ import annotations

import math

import pytest
import torch

from curl_rl.losses import (
    PairScores,
    bank_scores,
    bilinear_similarity,
    info_nce,
    log_mean_exp,
    nce,
    nt_logistic,
    nt_xent,
    two_view_scores,
)
from helpers.random_tensors import draw, unit


def enumerated(first: torch.Tensor, second: torch.Tensor) -> list[tuple[float, list[float]]]:
    """The similarities of each of the 2B views to its positive and its negatives, pair by pair."""
    views = [*first, *second]
    rows = []
    for i, view in enumerate(views):
        partner = (i + len(first)) % len(views)
        negatives = [float(view @ views[j]) for j in range(len(views)) if j not in (i, partner)]
        rows.append((float(view @ views[partner]), negatives))
    return rows


def test_info_nce_of_a_two_by_two_case_by_hand() -> None:
    # Row 0: −log(e¹ / (e¹ + e⁰)); row 1: −log(e² / (e³ + e²)).
    logits = torch.tensor([[1.0, 0.0], [3.0, 2.0]], dtype=torch.float64)
    by_hand = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(1))) / 2
    assert info_nce(logits).item() == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_info_nce_without_information_is_the_logarithm_of_the_keys(batch: int) -> None:
    logits = torch.full((batch, 11), 3.7, dtype=torch.float64)
    assert info_nce(logits).item() == pytest.approx(math.log(11), rel=1e-12)


def test_info_nce_with_one_negative_is_logistic_regression() -> None:
    logits = torch.randn(2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    margin = logits.diag() - logits.flip(1).diag()
    assert torch.allclose(info_nce(logits), torch.nn.functional.softplus(-margin).mean(), rtol=1e-12, atol=0)


def test_info_nce_ignores_a_constant_per_row_and_survives_large_logits() -> None:
    logits = torch.randn(5, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    shift = torch.tensor([[0.0], [1e3], [-1e3], [1e5], [7.0]], dtype=torch.float64)
    assert torch.allclose(info_nce(logits + shift), info_nce(logits), rtol=1e-9, atol=0)


def test_info_nce_gradient_is_right_by_finite_differences() -> None:
    logits = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2), requires_grad=True)
    assert torch.autograd.gradcheck(info_nce, (logits,))


def test_info_nce_refuses_queries_without_a_key() -> None:
    with pytest.raises(ValueError, match="4 queries and 3 keys"):
        info_nce(torch.zeros(4, 3))


def test_bilinear_similarity_is_the_double_sum() -> None:
    generator = torch.Generator().manual_seed(3)
    query, weight, key = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((3, 4), (4, 5), (6, 5))
    )
    for i in range(3):
        for j in range(6):
            total = sum(query[i, d] * weight[d, e] * key[j, e] for d in range(4) for e in range(5))
            assert bilinear_similarity(query, weight, key)[i, j].item() == pytest.approx(float(total), rel=1e-12)


def test_two_view_scores_are_the_pairs_enumerated() -> None:
    first, second = draw(3, 4), draw(3, 4, seed=1)
    scores = two_view_scores(first, second)
    for i, (positive, negatives) in enumerate(enumerated(first, second)):
        assert scores.positive[i].item() == pytest.approx(positive, rel=1e-12)
        kept = scores.negatives[i][scores.negatives[i] > -math.inf].tolist()
        assert kept == pytest.approx(negatives, rel=1e-12)


def test_two_view_scores_of_one_image_are_refused() -> None:
    with pytest.raises(ValueError, match=r"at least 2 samples in a batch \(batch_size\), got 1"):
        two_view_scores(torch.zeros(1, 3), torch.zeros(1, 3))


def test_nt_xent_of_two_images_by_hand() -> None:
    """Views a, b and a′ = a, b′ = b with a ⟂ b: each has its positive at 1 and two negatives at 0."""
    eye = torch.eye(2, dtype=torch.float64)
    loss = nt_xent(two_view_scores(eye, eye), 0.5)
    assert loss.item() == pytest.approx(-math.log(math.e**2 / (math.e**2 + 2)), rel=1e-12)


@pytest.mark.parametrize("batch", [2, 5])
def test_nt_xent_is_pytorch_metric_learnings(batch: int) -> None:
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    first, second = draw(batch, 4), draw(batch, 4, seed=1)
    oracle = losses.NTXentLoss(temperature=0.3)(torch.cat([first, second]), torch.arange(batch).repeat(2))
    normalize = torch.nn.functional.normalize
    ours = nt_xent(two_view_scores(normalize(first), normalize(second)), 0.3)
    assert ours.item() == pytest.approx(oracle.item(), rel=1e-6)


def test_nt_xent_with_one_negative_is_logistic() -> None:
    scores = PairScores(draw(6), draw(6, 1, seed=1))
    expected = torch.nn.functional.softplus((scores.negatives[:, 0] - scores.positive) / 0.2).mean()
    assert torch.allclose(nt_xent(scores, 0.2), expected, rtol=1e-12, atol=0)


def test_nt_xent_without_a_negative_is_solved_and_pulls_nowhere() -> None:
    query = draw(3, 2).requires_grad_()
    scores = bank_scores(query, draw(3, 2, seed=1), draw(4, 2, seed=2), torch.zeros(4, dtype=torch.bool))
    loss = nt_xent(scores, 0.2)
    assert loss == 0
    assert torch.equal(torch.autograd.grad(loss, query)[0], torch.zeros_like(query))


@pytest.mark.parametrize(
    ("tau_plus", "beta", "bounded_views"),
    [(0.0, 0.0, 0), (0.01, 0.0, 0), (0.0, 1.5, 0), (0.02, 0.7, 0), (0.3, 0.0, 2), (0.9, 1.5, 4)],
)
def test_the_corrections_of_nt_xent_are_the_papers_sums(tau_plus: float, beta: float, bounded_views: int) -> None:
    """Both estimators written out pair by pair, with the bound active for some of the views or for none."""
    first, second, t = unit(4, 3), unit(4, 3, seed=1), 0.5
    total, bounded = 0.0, 0
    for positive, negatives in enumerated(first, second):
        count = len(negatives)
        weights = [math.exp(beta * n / t) for n in negatives]
        mean = sum(weights) / count
        estimate = sum(w / mean * math.exp(n / t) for w, n in zip(weights, negatives, strict=True))
        estimate = (estimate - count * tau_plus * math.exp(positive / t)) / (1 - tau_plus)
        bounded += estimate < count * math.exp(-1 / t)
        estimate = max(estimate, count * math.exp(-1 / t))
        total -= math.log(math.exp(positive / t) / (math.exp(positive / t) + estimate))
    ours = nt_xent(two_view_scores(first, second), t, tau_plus=tau_plus, beta=beta)
    assert ours.item() == pytest.approx(total / 8, rel=1e-10)
    assert bounded == bounded_views


def test_the_corrections_fade_into_plain_nt_xent() -> None:
    scores = two_view_scores(unit(5, 3), unit(5, 3, seed=1))
    plain = nt_xent(scores, 0.5)
    assert torch.equal(nt_xent(scores, 0.5, tau_plus=0, beta=0), plain)
    assert nt_xent(scores, 0.5, tau_plus=1e-9).item() == pytest.approx(plain.item(), rel=1e-7)
    assert nt_xent(scores, 0.5, beta=1e-9).item() == pytest.approx(plain.item(), rel=1e-7)


@pytest.mark.parametrize(("tau_plus", "beta"), [(0.0, 0.0), (0.1, 0.0), (0.0, 1.0), (0.1, 1.0), (0.9, 0.0)])
def test_nt_xent_survives_a_small_temperature_in_single_precision(tau_plus: float, beta: float) -> None:
    first, second = unit(6, 3).float().requires_grad_(), unit(6, 3, seed=1).float()
    loss = nt_xent(two_view_scores(first, second), 0.005, tau_plus=tau_plus, beta=beta)
    exact = nt_xent(two_view_scores(first.double(), second.double()), 0.005, tau_plus=tau_plus, beta=beta)
    assert loss.item() == pytest.approx(exact.item(), rel=1e-3)
    assert torch.autograd.grad(loss, first)[0].isfinite().all()


@pytest.mark.parametrize(("tau_plus", "beta"), [(0.0, 0.0), (0.1, 1.0)])
def test_nt_xent_gradient_is_right_by_finite_differences(tau_plus: float, beta: float) -> None:
    def loss(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        normalize = torch.nn.functional.normalize
        return nt_xent(two_view_scores(normalize(first), normalize(second)), 0.5, tau_plus=tau_plus, beta=beta)

    assert torch.autograd.gradcheck(loss, (draw(3, 4).requires_grad_(), draw(3, 4, seed=1).requires_grad_()))


def test_half_precision_is_widened() -> None:
    first, second = unit(5, 4).bfloat16(), unit(5, 4, seed=1).bfloat16()
    narrow, wide = two_view_scores(first, second), two_view_scores(first.double(), second.double())
    assert narrow.positive.dtype == torch.float32
    assert nt_xent(narrow, 0.1).item() == pytest.approx(nt_xent(wide, 0.1).item(), rel=1e-5)


def test_bank_scores_are_inner_products_and_mask_the_empty_slots() -> None:
    query, key, bank = draw(2, 3), draw(2, 3, seed=1), draw(4, 3, seed=2)
    scores = bank_scores(query, key, bank, torch.tensor([True, False, True, False]))
    for i in range(2):
        assert scores.positive[i].item() == pytest.approx(float(query[i] @ key[i]), rel=1e-12)
        expected = [float(query[i] @ bank[0]), -math.inf, float(query[i] @ bank[2]), -math.inf]
        assert scores.negatives[i].tolist() == pytest.approx(expected, rel=1e-12)


def test_nt_logistic_is_the_sum_written_out() -> None:
    first, second, t = unit(3, 4), unit(3, 4, seed=1), 0.3

    def log_sigmoid(x: float) -> float:
        return -math.log1p(math.exp(-x))

    total = 0.0
    for positive, negatives in enumerated(first, second):
        total -= log_sigmoid(positive / t) + sum(log_sigmoid(-n / t) for n in negatives) / len(negatives)
    assert nt_logistic(two_view_scores(first, second), t).item() == pytest.approx(total / 6, rel=1e-12)


def test_nce_is_the_cross_entropy_of_telling_positives_from_noise() -> None:
    """On probabilities, row by row; the second query has one negative fewer."""
    positive, negatives = draw(2), draw(2, 3, seed=1)
    negatives[1, 2] = -torch.inf
    total, rows, z = 0.0, 40, 55.0
    for p, others in zip(positive.tolist(), negatives.tolist(), strict=True):
        noise = [other for other in others if other > -math.inf]
        chance = len(noise) / rows
        model = math.exp(p / 0.4) / z
        total -= math.log(model / (model + chance))
        total -= sum(math.log(chance / (math.exp(other / 0.4) / z + chance)) for other in noise)
    loss = nce(PairScores(positive, negatives), 0.4, torch.tensor(z / rows, dtype=torch.float64).log())
    assert loss.item() == pytest.approx(total / 2, rel=1e-12)


def test_nce_is_finite_where_probabilities_overflow() -> None:
    scores = PairScores(torch.tensor([1.0]), torch.tensor([[1.0, -1.0, -torch.inf]]))
    normalizer = log_mean_exp(scores, 0.001)
    assert normalizer.item() == pytest.approx(1000 + math.log(2 / 3), rel=1e-6)
    # P = 3/2 of the mean's share for the positive and the equal negative, 0 for the other; 2 negatives.
    assert nce(scores, 0.001, normalizer).item() == pytest.approx(-math.log(1.5 / 3.5) - math.log(2 / 3.5), rel=1e-3)
    alone = PairScores(torch.tensor([1.0]), torch.full((1, 2), -torch.inf))
    assert nce(alone, 0.5, torch.tensor(0.0)) == 0


def test_the_normalizer_is_the_mean_over_all_rows() -> None:
    scores = PairScores(draw(2), draw(2, 2, seed=1))
    every = [*scores.positive.tolist(), *scores.negatives.flatten().tolist()]
    expected = math.log(sum(math.exp(score / 0.7) for score in every) / 6)
    assert log_mean_exp(scores, 0.7).item() == pytest.approx(expected, rel=1e-12)
