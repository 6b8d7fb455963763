"""Embeddings of length 1, against PyTorch's normalization and its gradient."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from curl_rl.losses import unit_rows
from helpers.random_tensors import draw


@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e9, 1e-13])
def test_values_and_gradients_are_pytorchs(scale: float) -> None:
    embeddings = (scale * draw(7, 5)).requires_grad_()
    weights = draw(7, 5, seed=1)
    found, right = unit_rows(embeddings), F.normalize(embeddings)
    torch.testing.assert_close(found, right, rtol=1e-12, atol=1e-12)
    (gradient,), (expected,) = (torch.autograd.grad((x * weights).sum(), embeddings) for x in (found, right))
    torch.testing.assert_close(gradient * scale, expected * scale, rtol=1e-12, atol=1e-12)


def test_a_row_of_zeros_stays_and_its_gradient_is_finite() -> None:
    embeddings = torch.tensor([[0.0, 0.0], [3.0, 4.0]]).requires_grad_()
    found = unit_rows(embeddings)
    assert found.tolist() == [[0, 0], [pytest.approx(0.6), pytest.approx(0.8)]]
    found.sum().backward()
    assert embeddings.grad is not None
    assert embeddings.grad.isfinite().all()


def test_its_gradient_is_its_derivative() -> None:
    assert torch.autograd.gradcheck(unit_rows, draw(4, 3).requires_grad_())


def test_half_precision_is_widened() -> None:
    embeddings = draw(4, 3).half()
    assert unit_rows(embeddings).dtype == torch.float32
    assert torch.equal(unit_rows(embeddings), unit_rows(embeddings.float()))
