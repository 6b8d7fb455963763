"""Balanced codes against the iteration on probabilities, the definition of optimal transport, and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from curl_rl.losses import sinkhorn
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
