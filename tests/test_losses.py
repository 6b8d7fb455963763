"""Losses against numbers worked out by hand, closed forms and finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from curl_rl.losses import (
    bilinear_similarity,
    contrastive_accuracy,
    effective_rank,
    info_nce,
    softmax_confidence,
)


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


def test_info_nce_ignores_what_a_row_has_in_common_and_survives_large_logits() -> None:
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


def test_contrastive_accuracy_counts_rows_whose_diagonal_wins() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0], [5.0, 4.0, 0.0], [0.0, 1.0, 2.0], [0.0, 9.0, 1.0]])[:, :3]
    assert contrastive_accuracy(logits[:3]).item() == pytest.approx(2 / 3)


def test_softmax_confidence_by_hand() -> None:
    # The largest probabilities are 3/4 and 1/2.
    logits = torch.tensor([[math.log(3.0), 0.0], [5.0, 5.0]])
    assert softmax_confidence(logits).item() == pytest.approx(0.625)
    assert softmax_confidence(torch.tensor([[1e4, 0.0, 0.0]])).item() == pytest.approx(1)


def test_effective_rank_of_isotropic_line_and_point_clouds() -> None:
    corners = torch.cat([torch.eye(4), -torch.eye(4)])  # mean zero, four equal singular values
    assert effective_rank(corners).item() == pytest.approx(4, rel=1e-5)
    line = torch.linspace(-1, 1, 9)[:, None] * torch.tensor([[1.0, 2.0, 3.0]]) + 5
    assert effective_rank(line).item() == pytest.approx(1, rel=1e-4)
    assert effective_rank(torch.ones(6, 3)).item() == 0
    assert effective_rank(torch.tensor([[1.0, torch.nan], [0.0, 1.0]])).isnan()


def test_effective_rank_equals_numpys_and_ignores_scale_and_shift() -> None:
    z = np.random.default_rng(0).normal(size=(20, 7)) * np.arange(1, 8)
    values = np.linalg.svd(z - z.mean(0), compute_uv=False)
    share = values / values.sum()
    expected = np.exp(-(share * np.log(share)).sum())
    assert effective_rank(torch.from_numpy(z)).item() == pytest.approx(expected, rel=1e-5)
    assert effective_rank(torch.from_numpy(3 * z + 11)).item() == pytest.approx(expected, rel=1e-4)
