"""Margin losses against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch

from curl_rl.losses import PairScores, semi_hard_triplet


def test_semi_hard_triplet_by_hand() -> None:
    scores = PairScores(
        torch.tensor([0.5, 0.5, 0.5]),
        torch.tensor([[0.9, 0.4, 0.3], [0.9, 0.1, 0.0], [0.35, 0.9, -torch.inf]]),
    )
    # Within the margin of 0.2 below the positive: 0.4 in the first row, none in the second, 0.35 in the third.
    assert semi_hard_triplet(scores, 0.2).item() == pytest.approx((0.1 + 0 + 0.05) / 3, rel=1e-5)


def test_semi_hard_triplet_moves_only_the_positive_and_the_semi_hard_negative() -> None:
    positive, negatives = torch.tensor([0.5, 0.5]), torch.tensor([[0.9, 0.4, 0.35], [0.9, 0.1, -torch.inf]])
    loss = semi_hard_triplet(PairScores(positive.requires_grad_(), negatives.requires_grad_()), 0.2)
    by_positive, by_negatives = torch.autograd.grad(loss, (positive, negatives))
    assert by_positive.tolist() == [-0.5, 0]
    assert by_negatives.tolist() == [[0, 0.5, 0], [0, 0, 0]]
