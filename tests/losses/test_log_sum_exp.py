"""The logarithm of a sum of exponentials against PyTorch's, numpy's and numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from curl_rl.losses.log_sum_exp import log_sum_exp
from helpers.random_tensors import draw


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 7), (5, 1), (4, 9)])
@pytest.mark.parametrize("temperature", [0.05, 1.0, 30.0])
def test_values_and_gradients_are_those_of_the_definition(rows: int, columns: int, temperature: float) -> None:
    scores = draw(rows, columns).requires_grad_()
    expected = np.logaddexp.reduce(scores.detach().numpy() / temperature, 1)
    result = log_sum_exp(scores, temperature)
    assert np.allclose(result.detach().numpy(), expected, rtol=1e-13, atol=1e-13)

    weights = draw(rows, seed=1)
    (gradient,) = torch.autograd.grad(result @ weights, scores)
    shares = np.exp(scores.detach().numpy() / temperature - expected[:, None])
    assert np.allclose(gradient.numpy(), shares * weights[:, None].numpy() / temperature, rtol=1e-12, atol=0)


def test_excluded_scores_count_for_nothing_and_a_row_of_them_alone_has_no_gradient() -> None:
    """The row of one score is that score, whatever the temperature; the row without any is the log of 0."""
    scores = torch.tensor([[-torch.inf, 3.0, -torch.inf], [-torch.inf] * 3, [1.0, 1.0, -torch.inf]]).requires_grad_()
    result = log_sum_exp(scores, 0.5)
    assert torch.allclose(result, torch.tensor([6.0, -math.inf, 2 + math.log(2)]))
    # As a loss sees a row without scores: the sigmoid of infinity is flat, and sends back 0.
    torch.nn.functional.logsigmoid(1 - result).sum().backward()
    assert scores.grad is not None
    assert scores.grad[1].tolist() == [0, 0, 0]
    assert (scores.grad != 0).tolist() == [[False, True, False], [False] * 3, [True, True, False]]


@pytest.mark.parametrize("size", [1e-30, 1e4, 1e30])
def test_large_and_small_scores_are_finite_in_float32(size: float) -> None:
    scores = size * torch.tensor([[1.0, -1.0], [0.5, 0.5]])
    expected = np.logaddexp.reduce(scores.double().numpy(), 1)
    assert np.allclose(log_sum_exp(scores, 1.0).numpy(), expected, rtol=1e-6)


def test_the_scores_stay_as_they_are_and_a_second_derivative_is_refused() -> None:
    scores = draw(3, 4).requires_grad_()
    before = scores.detach().clone()
    (gradient,) = torch.autograd.grad(log_sum_exp(scores, 0.2).square().sum(), scores, create_graph=True)
    assert torch.equal(scores.detach(), before)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
