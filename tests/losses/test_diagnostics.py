"""Diagnostics of embeddings against numbers worked out by hand and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from curl_rl.losses import (
    PairScores,
    alignment,
    class_accuracy,
    contrastive_accuracy,
    effective_rank,
    embedding_std,
    pair_accuracy,
    softmax_confidence,
    uniformity,
)
from helpers.random_tensors import draw


def test_contrastive_accuracy_counts_rows_whose_diagonal_wins() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0], [5.0, 4.0, 0.0], [0.0, 1.0, 2.0], [0.0, 9.0, 1.0]])[:, :3]
    assert contrastive_accuracy(logits[:3]).item() == pytest.approx(2 / 3)


def test_class_accuracy_counts_embeddings_that_are_nearest_to_their_class() -> None:
    similarity = torch.tensor([[9.0, 3.0, 1.0, 2.0], [1.0, 9.0, 2.0, 0.0], [5.0, 6.0, 9.0, 7.0], [0.0, 0.0, 0.0, 9.0]])
    # The first is nearest to its class, the second is not, the third is alone, the fourth cannot tell.
    assert class_accuracy(similarity, torch.tensor([0, 0, 1, 0])).item() == pytest.approx(1 / 4)
    assert class_accuracy(similarity, torch.tensor([0, 1, 1, 1])).item() == pytest.approx(2 / 4)


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


def test_pair_accuracy_counts_positives_above_all_negatives() -> None:
    negatives = torch.tensor([[0.0, -torch.inf], [0.5, 0.0], [2.0, 0.0], [-torch.inf, -torch.inf]])
    assert pair_accuracy(PairScores(torch.ones(4), negatives)).item() == 0.75
    assert pair_accuracy(PairScores(torch.ones(1), torch.ones(1, 3))) == 0, "a tie is no win"


def test_alignment_of_equal_orthogonal_and_opposite_views() -> None:
    first = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    assert alignment(first, 5 * first) == 0
    assert alignment(first, first.flip(1)).item() == pytest.approx(2)
    assert alignment(first, -first).item() == pytest.approx(4)
    assert alignment(first, torch.tensor([[2.0, 0.0], [3.0, 0.0]])).item() == pytest.approx(1), "the mean of 0 and 2"


def test_uniformity_by_hand() -> None:
    """Three embeddings at right angles or opposite: squared distances 2, 2 and 4."""
    embeddings = torch.tensor([[2.0, 0.0], [0.0, 1.0], [-3.0, 0.0]], dtype=torch.float64)
    expected = math.log((2 * math.exp(-2 * 2) + math.exp(-2 * 4)) / 3)
    assert uniformity(embeddings).item() == pytest.approx(expected, rel=1e-10)
    assert uniformity(torch.ones(4, 3)).item() == pytest.approx(0, abs=1e-5)


def test_embeddings_of_length_1_need_not_be_normalized_again() -> None:
    first, second = (torch.nn.functional.normalize(draw(9, 5, seed=seed)) for seed in (1, 2))
    torch.testing.assert_close(alignment(first, second, unit=True), alignment(first, second), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(embedding_std(first, unit=True), embedding_std(first), rtol=1e-12, atol=1e-12)
    assert alignment(first, first, unit=True) == 0


def test_of_equal_scores_the_first_one_is_the_highest() -> None:
    """As argmax has it: the first query is right, and the second, whose twin comes first, is wrong."""
    logits = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
    right = logits.argmax(1) == torch.arange(3)
    assert right.tolist() == [True, False, False]
    assert contrastive_accuracy(logits).item() == pytest.approx(1 / 3)


def test_embedding_std_of_corners_line_and_point() -> None:
    assert embedding_std(torch.cat([torch.eye(4), -7 * torch.eye(4)])).item() == pytest.approx(1)
    line = torch.tensor([[1.0, 0, 0, 0], [-1.0, 0, 0, 0]])
    assert embedding_std(line).item() == pytest.approx(1 / 4 * 2), "one of four dimensions, times √4"
    assert embedding_std(torch.ones(5, 3)).item() == pytest.approx(0, abs=1e-6)
    assert embedding_std(draw(4000, 16)).item() == pytest.approx(1, abs=0.01)
