"""Losses of metric learning against numbers worked out by hand, PyTorch Metric Learning, and closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from curl_rl.losses import PairScores, nt_xent, semi_hard_triplet, supervised_nt_xent, two_view_scores
from helpers.random_tensors import unit

CLASSES = [[0, 1, 0, 2, 1, 1, 0], [0, 1, 1, 3, 5, 2, 0], [4, 4, 4, 4, 2, 2, 2]]


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


# ---- SupCon


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_supervised_nt_xent_is_pytorch_metric_learnings(classes: list[int], temperature: float) -> None:
    """With embeddings whose class is theirs alone, too; of those only the others' denominators know."""
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    embeddings, labels = unit(7, 4), torch.tensor(classes)
    expected = losses.SupConLoss(temperature=temperature)(embeddings, labels).item()
    loss = supervised_nt_xent(embeddings @ embeddings.T, labels, temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_supervised_nt_xent_with_one_positive_each_is_nt_xent() -> None:
    first, second = unit(6, 5), unit(6, 5, seed=1)
    views = torch.cat([first, second])
    loss = supervised_nt_xent(views @ views.T, torch.arange(6).repeat(2), 0.2)
    assert loss.item() == pytest.approx(nt_xent(two_view_scores(first, second), 0.2).item(), rel=1e-12)


def test_supervised_nt_xent_of_one_point_is_the_log_of_the_others() -> None:
    loss = supervised_nt_xent(torch.ones(8, 8, dtype=torch.float64), torch.tensor([0, 0, 0, 1, 1, 1, 1, 2]), 0.1)
    assert loss.item() == pytest.approx(math.log(7), rel=1e-12)


def test_without_any_positive_supervised_nt_xent_is_0_and_so_is_its_gradient() -> None:
    embeddings = unit(4, 3).requires_grad_()
    loss = supervised_nt_xent(embeddings @ embeddings.T, torch.arange(4), 0.1)
    (gradient,) = torch.autograd.grad(loss, embeddings)
    assert loss == 0
    assert (gradient == 0).all()
    with pytest.raises(ValueError, match=r"^similarity must be of at least 2 embeddings, got 1$"):
        supervised_nt_xent(torch.ones(1, 1), torch.zeros(1), 0.1)


def test_half_precision_similarities_of_classes_are_widened() -> None:
    similarity, classes = (unit(7, 4) @ unit(7, 4).T).half(), torch.tensor(CLASSES[0])
    loss = supervised_nt_xent(similarity, classes, 0.01)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(supervised_nt_xent(similarity.double(), classes, 0.01).item(), rel=1e-5)
