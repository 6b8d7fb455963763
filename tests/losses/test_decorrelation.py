"""Losses on correlations against numpy's and numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from curl_rl.losses import cross_correlation, redundancy
from helpers.random_tensors import draw


def test_cross_correlation_is_numpys_correlation() -> None:
    first, second = draw(9, 3), draw(9, 2, seed=1)
    expected = np.corrcoef(first.numpy().T, second.numpy().T)[:3, 3:]
    assert np.allclose(cross_correlation(first, second, eps=1e-30).numpy(), expected, rtol=1e-10)
    assert np.allclose(cross_correlation(7 * first + 3, second).numpy(), expected, rtol=1e-4)


def test_cross_correlation_of_one_sample_is_refused_and_of_a_constant_is_zero() -> None:
    with pytest.raises(ValueError, match=r"at least 2 samples in a batch \(batch_size\), got 1"):
        cross_correlation(torch.zeros(1, 3), torch.zeros(1, 3))
    assert torch.equal(cross_correlation(torch.ones(4, 2), draw(4, 2).float()), torch.zeros(2, 2))


def test_redundancy_by_hand() -> None:
    correlation = torch.tensor([[0.5, 0.1], [-0.2, 1.0]], dtype=torch.float64)
    assert redundancy(correlation, 0.3).item() == pytest.approx(0.25 + 0 + 0.3 * (0.01 + 0.04), rel=1e-12)


def test_redundancy_of_identical_whitened_views_is_zero() -> None:
    whitened = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    assert redundancy(cross_correlation(whitened, whitened), 0.005).item() == pytest.approx(0, abs=1e-8)
    assert redundancy(cross_correlation(whitened, -whitened), 0.005).item() == pytest.approx(8, rel=1e-4)
