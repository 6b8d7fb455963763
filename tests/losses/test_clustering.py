"""Codes against the iteration on probabilities and the definition of optimal transport; predictions of them by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import logsumexp

from curl_rl.losses import (
    cluster_accuracy,
    cluster_cross_entropy,
    sinkhorn,
    swapped_accuracy,
    swapped_prediction,
    used_share,
)
from helpers.random_tensors import draw, unit


def released(scores: np.ndarray, epsilon: float, iterations: int) -> np.ndarray:
    """SwAV's iteration as written in the paper, on probabilities in double precision."""
    plan = np.exp(scores.astype(np.float64) / epsilon)
    batch, prototypes = plan.shape
    plan /= plan.sum()
    for _ in range(iterations):
        plan /= prototypes * plan.sum(0, keepdims=True)
        plan /= batch * plan.sum(1, keepdims=True)
    return plan * batch


@pytest.mark.parametrize("iterations", [1, 3, 10])
@pytest.mark.parametrize(("batch", "prototypes"), [(12, 5), (4, 9), (1, 3), (3, 1)])
def test_sinkhorn_is_the_iteration_on_probabilities(batch: int, prototypes: int, iterations: int) -> None:
    scores = unit(batch, 8) @ unit(prototypes, 8, seed=1).T
    expected = released(scores.numpy(), 0.05, iterations)
    assert np.allclose(sinkhorn(scores, 0.05, iterations).numpy(), expected, rtol=1e-11, atol=0)


def test_many_iterations_solve_the_entropic_transport_problem() -> None:
    """The only plan with both marginals whose logarithm is scores/ε plus a row and a column constant."""
    scores = unit(12, 8) @ unit(5, 8, seed=1).T
    codes = sinkhorn(scores, 0.1, 3000)
    assert codes.sum(1).tolist() == pytest.approx([1] * 12, rel=1e-12)
    assert codes.sum(0).tolist() == pytest.approx([12 / 5] * 5, rel=1e-9)
    rest = codes.log() - scores / 0.1
    interaction = rest - rest.mean(0) - rest.mean(1, keepdim=True) + rest.mean()
    assert interaction.abs().max() < 1e-10


@pytest.mark.parametrize("iterations", [1, 3])
def test_the_codes_of_orthonormal_prototypes_are_the_closed_form(iterations: int) -> None:
    codes = sinkhorn(torch.eye(6, dtype=torch.float64), 0.5, iterations)
    own = 1 / (1 + 5 * math.exp(-1 / 0.5))
    assert torch.allclose(
        codes, torch.full((6, 6), (1 - own) / 5, dtype=torch.float64).fill_diagonal_(own), rtol=1e-12, atol=0
    )


def test_equal_scores_give_every_prototype_the_same() -> None:
    assert torch.allclose(sinkhorn(torch.full((4, 7), 0.3), 0.05, 3), torch.full((4, 7), 1 / 7), rtol=1e-6, atol=0)


def test_the_order_of_prototypes_and_constants_common_or_per_prototype_do_not_matter() -> None:
    scores, order = unit(9, 4) @ unit(5, 4, seed=1).T, torch.tensor([3, 0, 4, 1, 2])
    codes = sinkhorn(scores, 0.05, 3)
    assert torch.allclose(sinkhorn(scores[:, order], 0.05, 3), codes[:, order], rtol=1e-10, atol=0)
    assert torch.allclose(sinkhorn(scores + 7, 0.05, 3), codes, rtol=1e-10, atol=0)
    assert torch.allclose(sinkhorn(scores + draw(1, 5, seed=2), 0.05, 3), codes, rtol=1e-10, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_and_cosines_of_one_stay_finite(dtype: torch.dtype) -> None:
    scores = torch.cat([torch.eye(4), -torch.eye(4)]).to(dtype)
    codes = sinkhorn(scores, 0.05, 3)
    assert codes.dtype == torch.float32
    assert np.allclose(codes.numpy(), released(scores.float().numpy(), 0.05, 3), rtol=1e-4, atol=1e-12)


def test_scores_beyond_any_exponential_are_finite_and_rows_sum_to_one() -> None:
    codes = sinkhorn(100 * draw(64, 30).float(), 0.05, 3)
    assert codes.isfinite().all()
    assert (codes.sum(1) - 1).abs().max() <= 4 * torch.finfo(torch.float32).eps


@pytest.mark.parametrize("iterations", [1, 2, 3, 10])
def test_a_prototype_whose_exponentials_are_all_zero_in_float32_still_gets_its_share(iterations: int) -> None:
    """Scores of which every row's differ by up to 200 ε: scaled as logarithms by scipy, in double precision."""
    scores = torch.cat([draw(7, 4), draw(7, 2, seed=1) - 10], 1)
    logarithms = scores.numpy() / 0.05
    for _ in range(iterations):
        for axis in (0, 1):
            logarithms = logarithms - logsumexp(logarithms, axis=axis, keepdims=True)
    codes = sinkhorn(scores.float(), 0.05, iterations)
    assert np.allclose(codes.numpy(), np.exp(logarithms), rtol=1e-3, atol=1e-12)
    assert codes[:, 4:].max() > 0.01  # exp(-10 / 0.05) is 1e-87


def test_codes_have_no_gradient() -> None:
    assert not sinkhorn(draw(4, 3).requires_grad_(), 0.05, 3).requires_grad


@pytest.mark.parametrize(
    ("epsilon", "iterations", "message"),
    [
        (0.0, 3, "epsilon must be above 0, got 0"),
        (float("nan"), 3, "epsilon must be above 0, got nan"),
        (0.05, 0, "iterations must be at least 1, got 0"),
    ],
)
def test_impossible_settings_are_refused(epsilon: float, iterations: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sinkhorn(torch.zeros(2, 2), epsilon, iterations)


def test_each_code_is_predicted_by_all_other_views() -> None:
    """Three views, of which two have codes, and a fourth that has a code alone: written out sample by sample."""
    scores = {view: draw(5, 4, seed=view) for view in range(3)}
    codes = {view: draw(5, 4, seed=10 + view).softmax(1) for view in (0, 1, 3)}
    pairs = [(1, 0), (2, 0), (0, 1), (2, 1), (0, 3), (1, 3), (2, 3)]
    total = 0.0
    for by, to in pairs:
        for sample in range(5):
            exponentials = [math.exp(score / 0.3) for score in scores[by][sample].tolist()]
            for code, exponential in zip(codes[to][sample].tolist(), exponentials, strict=True):
                total -= code * math.log(exponential / sum(exponentials)) / (5 * len(pairs))
    assert swapped_prediction(scores, codes, 0.3).item() == pytest.approx(total, rel=1e-12)


def test_views_at_their_own_prototypes_cost_what_the_closed_form_says() -> None:
    cosines = torch.eye(6, dtype=torch.float64)
    codes = sinkhorn(cosines, 0.05, 3)
    loss = swapped_prediction({0: cosines, 1: cosines}, {0: codes, 1: codes}, 0.1)
    own = 1 / (1 + 5 * math.exp(-1 / 0.05))
    # Own prototype: log(1 + 5 exp(-10)); another prototype: 10 more.
    assert loss.item() == pytest.approx(math.log1p(5 * math.exp(-10)) + 10 * (1 - own), rel=1e-12)
    assert swapped_accuracy({0: cosines, 1: cosines}, {0: codes, 1: codes}) == 1


def test_prototypes_that_cannot_be_told_apart_cost_the_log_of_their_number() -> None:
    scores = torch.full((4, 7), 0.3, dtype=torch.float64)
    loss = swapped_prediction({"left": scores}, {"right": sinkhorn(scores, 0.05, 3)}, 0.1)
    assert loss.item() == pytest.approx(math.log(7), rel=1e-12)


def test_the_order_of_prototypes_and_a_constant_do_not_matter_to_the_loss() -> None:
    order = torch.tensor([3, 0, 4, 1, 2])
    first, second = (unit(9, 4, seed=view) @ unit(5, 4, seed=7).T for view in range(2))

    def loss(*views: torch.Tensor) -> float:
        scores = dict(enumerate(views))
        return swapped_prediction(scores, {view: sinkhorn(own, 0.05, 3) for view, own in scores.items()}, 0.1).item()

    assert loss(first[:, order], second[:, order]) == pytest.approx(loss(first, second), rel=1e-12)
    assert loss(first + 3, second + 3) == pytest.approx(loss(first, second), rel=1e-12)


def test_half_precision_scores_are_widened_before_they_are_predicted_from() -> None:
    scores = (unit(3, 4) @ unit(5, 4, seed=1).T).half()
    codes = {0: sinkhorn(scores, 0.05, 3)}
    loss = swapped_prediction({1: scores}, codes, 0.01)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(swapped_prediction({1: scores.double()}, codes, 0.01).item(), rel=1e-5)


def test_accuracy_counts_predictions_whose_best_prototype_is_the_codes() -> None:
    scores = {0: torch.eye(3)[[0, 1, 2, 0]], 1: torch.eye(3)[[0, 1, 1, 1]]}
    codes = {0: torch.eye(3)[[0, 0, 1, 2]]}
    assert swapped_accuracy(scores, codes).item() == 2 / 4  # of view 1, samples 0 and 2


@pytest.mark.parametrize(("best", "share"), [([0, 0, 0, 0], 1 / 4), ([0, 1, 0, 1], 2 / 4), ([0, 1, 2, 3], 1)])
def test_the_share_of_prototypes_in_use(best: list[int], share: float) -> None:
    assert used_share(torch.eye(4)[best], 0.01).item() == pytest.approx(share, rel=1e-6)


def test_rows_without_a_cluster_are_left_out_of_the_mean() -> None:
    """Two clusterings of five embeddings, of which two and one have no cluster, row by row."""
    scores = draw(2, 5, 3)
    clusters = torch.tensor([[2, -1, 0, -1, 1], [0, 0, -1, 2, 1]])
    rows = [(h, i) for h in range(2) for i in range(5) if clusters[h, i] >= 0]
    losses = [F.cross_entropy(scores[h, i] / 0.3, clusters[h, i]).item() for h, i in rows]
    right = [scores[h, i].argmax().item() == clusters[h, i].item() for h, i in rows]
    assert cluster_cross_entropy(scores, clusters, 0.3).item() == pytest.approx(sum(losses) / 7, rel=1e-12)
    assert cluster_accuracy(scores, clusters).item() == pytest.approx(sum(right) / 7)
    assert 0 < sum(right) < 7


def test_no_cluster_at_all_costs_nothing_and_one_cluster_neither() -> None:
    nowhere = torch.full((4,), -1)
    assert cluster_cross_entropy(draw(4, 3), nowhere, 0.1) == cluster_accuracy(draw(4, 3), nowhere) == 0
    assert cluster_cross_entropy(draw(4, 1), torch.zeros(4, dtype=torch.int64), 0.1) == 0


def test_half_precision_similarities_of_clusters_are_widened() -> None:
    scores = (unit(4, 8) @ unit(3, 8, seed=1).T).half()
    clusters = torch.tensor([0, 2, 1, 1])
    loss = cluster_cross_entropy(scores, clusters, 0.01)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(F.cross_entropy(scores.double() / 0.01, clusters).item(), rel=1e-5)
