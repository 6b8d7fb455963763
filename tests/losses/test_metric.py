"""Losses of metric learning against numbers worked out by hand, PyTorch Metric Learning, and closed forms."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from curl_rl.losses import (
    PairScores,
    info_nce,
    n_pair,
    nt_xent,
    pair_margin,
    semi_hard_triplet,
    squared_distances,
    supervised_nt_xent,
    triplet,
    two_view_scores,
)
from helpers.random_tensors import draw, unit

CLASSES = [[0, 1, 0, 2, 1, 1, 0], [0, 1, 1, 3, 5, 2, 0], [4, 4, 4, 4, 2, 2, 2]]


def library(part: str) -> Any:
    """A part of PyTorch Metric Learning."""
    return pytest.importorskip(f"pytorch_metric_learning.{part}")


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
    embeddings, labels = unit(7, 4), torch.tensor(classes)
    expected = library("losses").SupConLoss(temperature=temperature)(embeddings, labels).item()
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


# ---- pairs and triplets


def squared() -> dict[str, Any]:
    """Squared distances and plain means, for the library's losses."""
    distance = library("distances").LpDistance(normalize_embeddings=False, p=2, power=2)
    return {"distance": distance, "reducer": library("reducers").MeanReducer()}


@pytest.mark.parametrize("classes", CLASSES)
def test_pair_margin_is_pytorch_metric_learnings(classes: list[int]) -> None:
    embeddings, labels = 0.5 * draw(7, 4), torch.tensor(classes)
    oracle = library("losses").ContrastiveLoss(pos_margin=0, neg_margin=1.0, **squared())
    loss = pair_margin(squared_distances(embeddings), labels, 1.0).loss
    assert loss.item() == pytest.approx(oracle(embeddings, labels).item(), rel=1e-10)


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("margin", [0.2, 2.0])
def test_all_triplets_are_pytorch_metric_learnings(classes: list[int], margin: float) -> None:
    embeddings, labels = (0.5 * draw(7, 4)).requires_grad_(), torch.tensor(classes)
    expected = library("losses").TripletMarginLoss(margin=margin, **squared())(embeddings, labels)
    loss = triplet(squared_distances(embeddings), labels, margin, "all").loss
    assert loss.item() == pytest.approx(expected.item(), rel=1e-10)
    gradients = [torch.autograd.grad(each, embeddings)[0] for each in (loss, expected)]
    assert torch.allclose(*gradients, rtol=1e-10)


@pytest.mark.parametrize("mining", ["semi_hard", "hard"])
def test_a_mined_triplet_moves_only_its_own_distances(mining: Any) -> None:
    distance = torch.tensor(
        [[0.0, 0.5, 0.4, 0.6, 0.9], [0.5, 0, 2, 2, 2], [0.4, 2, 0, 2, 2], [0.6, 2, 2, 0, 2], [1] * 5]
    )
    distance.requires_grad_()
    loss, active = triplet(distance, torch.tensor([0, 0, 1, 2, 3]), 0.2, mining)
    (gradient,) = torch.autograd.grad(loss, distance)
    # Of the anchors 0 and 1, the only ones with a partner, the second loses nothing. For the first, 0.4 is the nearest
    # of another class, and 0.6 the nearest beyond the partner's 0.5.
    assert loss.item() == pytest.approx((0.3 if mining == "hard" else 0.1) / 2)
    assert active == 1 / 2
    expected = torch.zeros(5, 5)
    expected[0, 1], expected[0, 2 if mining == "hard" else 3] = 0.5, -0.5
    assert torch.equal(gradient, expected)


@pytest.mark.parametrize("classes", [[0] * 5, [0, 1, 2, 3, 4]])
def test_a_batch_without_pairs_of_a_kind_leaves_that_kind_out(classes: list[int]) -> None:
    embeddings, labels = draw(5, 3).requires_grad_(), torch.tensor(classes)
    distance = squared_distances(embeddings)
    losses = [triplet(distance, labels, 0.2, mining).loss for mining in ("all", "semi_hard", "hard")]
    if labels.any():
        losses.append(pair_margin(distance, labels, 1e-6).loss)  # all are farther apart
    else:
        losses.append(n_pair(embeddings @ embeddings.T, labels))
    for loss in losses:
        assert loss == 0
        assert (torch.autograd.grad(loss, embeddings, retain_graph=True)[0] == 0).all()


def test_squared_distances_are_cdists_with_a_gradient_at_0() -> None:
    embeddings = torch.cat([draw(4, 3), draw(1, 3).expand(2, 3)]).requires_grad_()
    distance = squared_distances(embeddings)
    assert torch.allclose(distance, torch.cdist(embeddings, embeddings).square(), atol=1e-12)
    assert (distance >= 0).all()
    (gradient,) = torch.autograd.grad(distance[4:, 4:].sum(), embeddings)
    assert torch.allclose(gradient, torch.zeros_like(gradient), atol=1e-12)


@pytest.mark.parametrize("classes", CLASSES)
def test_n_pair_is_pytorch_metric_learnings(classes: list[int]) -> None:
    anchors, keys, labels = draw(7, 4), draw(7, 4, seed=1), torch.tensor(classes)
    product = library("distances").DotProductSimilarity(normalize_embeddings=False)
    oracle = library("losses").NTXentLoss(temperature=1.0, distance=product)
    expected = oracle(anchors, labels, ref_emb=keys, ref_labels=labels.clone())
    assert n_pair(anchors @ keys.T, labels).item() == pytest.approx(expected.item(), rel=1e-6)


def test_n_pair_of_different_classes_is_info_nce_and_with_one_negative_logistic() -> None:
    similarity = draw(5, 4) @ draw(5, 4, seed=1).T
    assert n_pair(similarity, torch.arange(5)).item() == pytest.approx(info_nce(similarity).item(), rel=1e-12)
    assert n_pair(similarity, None).item() == pytest.approx(n_pair(similarity, torch.arange(5)).item(), rel=1e-12)
    (a, b), (c, d) = similarity[:2, :2].tolist()
    expected = (math.log1p(math.exp(b - a)) + math.log1p(math.exp(c - d))) / 2
    assert n_pair(similarity[:2, :2], torch.tensor([0, 1])).item() == pytest.approx(expected, rel=1e-12)


def test_half_precision_distances_are_widened() -> None:
    embeddings, labels = unit(7, 4).bfloat16(), torch.tensor(CLASSES[0])
    distance = squared_distances(embeddings)
    assert distance.dtype == torch.float32
    assert torch.allclose(distance.double(), squared_distances(embeddings.double()), atol=1e-6)
    narrow = distance.half()
    for mining in ("all", "semi_hard", "hard"):
        loss = triplet(narrow, labels, 0.2, mining).loss
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(triplet(narrow.double(), labels, 0.2, mining).loss.item(), rel=1e-5)
    assert pair_margin(narrow, labels, 1.0).loss.dtype == n_pair(narrow, labels).dtype == torch.float32
