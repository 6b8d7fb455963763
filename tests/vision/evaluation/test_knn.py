"""Weighted nearest neighbors against votes counted by hand, a loop over pairs, and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from curl_rl.vision.evaluation import knn
from curl_rl.vision.evaluation.knn import knn_accuracy, knn_predict


def on_circle(*degrees: float) -> torch.Tensor:
    angles = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], 1)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def draw_labels(count: int, classes: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(classes, (count,), generator=torch.Generator().manual_seed(seed))


TRAIN, LABELS = on_circle(0, 60, 60, 180), torch.tensor([0, 1, 1, 2])


@pytest.mark.parametrize(
    ("k", "temperature", "expected"),
    [
        (1, 1.0, 0),  # the one at 0° is nearest to the query at 0°
        # Cosines 1, ½, ½: e^(1/T) against 2·e^(½/T). They are equal at T = ½ / ln 2 = 0.7213…
        (3, 0.72, 0),
        (3, 0.73, 1),
    ],
)
def test_four_points_by_hand(k: int, temperature: float, expected: int) -> None:
    predicted = knn_predict(TRAIN.float(), LABELS, on_circle(0).float(), classes=3, k=k, temperature=temperature)
    assert predicted.tolist() == [expected]


def test_accuracy_is_the_share_of_correct_predictions() -> None:
    queries = on_circle(-5, 62, 175, 170)
    accuracy = knn_accuracy(TRAIN, LABELS, queries, torch.tensor([0, 1, 2, 0]), classes=3, k=1)
    assert accuracy.item() == 0.75
    assert accuracy.shape == ()


def test_the_length_of_features_does_not_matter() -> None:
    train, queries, labels = draw(30, 5), draw(9, 5, seed=1), draw_labels(30, 3)
    lengths = draw(30, 1, seed=2).exp()
    plain = knn_predict(train, labels, queries, classes=3, k=7)
    assert torch.equal(knn_predict(train * lengths, labels, 40 * queries, classes=3, k=7), plain)


@pytest.fixture(params=[2**24, 100])
def _chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All queries at once, and in chunks of two with one left over."""
    monkeypatch.setattr(knn, "_SIMILARITIES_AT_ONCE", request.param)


@pytest.mark.usefixtures("_chunks")
@pytest.mark.parametrize(("k", "temperature"), [(1, 0.1), (10, 0.1), (50, 0.5)])
def test_predictions_equal_those_of_a_loop_over_pairs(k: int, temperature: float) -> None:
    train, queries, labels = draw(50, 4), draw(21, 4, seed=1), draw_labels(50, 5)
    expected = []
    for query in queries.tolist():
        pairs = []
        for point, label in zip(train.tolist(), labels.tolist(), strict=True):
            cosine = sum(a * b for a, b in zip(query, point, strict=True)) / (math.hypot(*query) * math.hypot(*point))
            pairs.append((cosine, label))
        votes = [0.0] * 5
        for cosine, label in sorted(pairs, reverse=True)[:k]:
            votes[label] += math.exp(cosine / temperature)
        expected.append(votes.index(max(votes)))
    assert knn_predict(train, labels, queries, classes=5, k=k, temperature=temperature).tolist() == expected


def test_scikit_learn_agrees() -> None:
    neighbors = pytest.importorskip("sklearn.neighbors")
    train, queries, labels = draw(200, 6), draw(60, 6, seed=1), draw_labels(200, 4)
    model = neighbors.KNeighborsClassifier(
        20, metric="cosine", algorithm="brute", weights=lambda distances: np.exp((1 - distances) / 0.2)
    )
    model.fit(train.numpy(), labels.numpy())
    predicted = knn_predict(train, labels, queries, classes=4, k=20, temperature=0.2)
    assert predicted.tolist() == model.predict(queries.numpy()).tolist()


def test_no_temperature_is_too_low() -> None:
    """In float32 exp(1 / 0.005) and exp(½ / 0.005) would both be infinite, and thus equal."""
    predicted = knn_predict(TRAIN.float(), LABELS, on_circle(59).float(), classes=3, k=4, temperature=0.005)
    assert predicted.tolist() == [1]


def test_nothing_is_kept_for_a_gradient() -> None:
    def refuse(tensor: torch.Tensor) -> torch.Tensor:
        pytest.fail(f"a tensor of shape {tuple(tensor.shape)} is kept")

    train, labels = draw(10, 3).requires_grad_(), draw_labels(10, 2)
    with torch.autograd.graph.saved_tensors_hooks(refuse, refuse):
        knn_accuracy(train, labels, train, labels, classes=2, k=3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 5}, "k must be between 1 and the 4 training features, got 5"),
        ({"k": 0}, "k must be between 1 and the 4 training features, got 0"),
        ({"temperature": 0.0}, "temperature must be positive, got 0.0"),
        ({"classes": 2}, "set's labels must be from 0 to 1, got 0 to 2"),
        ({"train_labels": LABELS - 1}, "the training set's labels must be from 0 to 2, got -1 to 1"),
        ({"train_labels": LABELS[:3]}, "the training set has 4 examples, but labels of shape (3,)"),
        ({"test_labels": LABELS[:3]}, "the test set has 4 examples, but labels of shape (3,)"),
        ({"test_features": TRAIN[:0], "test_labels": LABELS[:0]}, "the test set is empty"),
        ({"train_features": TRAIN / 0}, "the training set holds features that are not finite"),
        ({"test_features": TRAIN.log()}, "the test set holds features that are not finite"),
    ],
)
def test_mistakes_are_named(change: dict[str, object], message: str) -> None:
    arguments = {
        "train_features": TRAIN,
        "train_labels": LABELS,
        "test_features": TRAIN,
        "test_labels": LABELS,
        "classes": 3,
        "k": 2,
    } | change
    with pytest.raises(ValueError, match=".") as error:
        knn_accuracy(**arguments)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
