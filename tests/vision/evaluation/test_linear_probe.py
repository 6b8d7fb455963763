"""Linear probes against closed forms, scikit-learn, optimality conditions, and the limits of regularization."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from curl_rl.vision.evaluation.linear_probe import (
    LinearProbeConfig,
    _stratified_split,
    fit_linear,
    linear_evaluation,
)

FEW = LinearProbeConfig(l2_count=5, max_iterations=100)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=seeded(seed))


def noisy_linear_map(count: int, dim: int = 5, classes: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Features, and labels drawn from the softmax of a fixed linear map: no classifier is right on all."""
    features, weight = draw(count, dim, seed=seed), 2 * draw(dim, classes, seed=100)
    labels = (features @ weight).softmax(1).multinomial(1, generator=seeded(seed))[:, 0]
    return features, labels


# ------------------------------------------------------------------ fit_linear


@pytest.mark.parametrize("margin", [0.5, 1.0, 3.0])
def test_two_points_have_a_closed_form(margin: float) -> None:
    """x = ±1: with W = (−d/2, d/2) the loss is log(1 + e^(−d)) + l2·d²/4, so l2 = 2 / (d (1 + e^d)) has optimum d."""
    l2 = 2 / (margin * (1 + math.exp(margin)))
    features = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    classifier = fit_linear(features, torch.tensor([0, 1]), classes=2, l2=l2, tolerance=1e-8)
    assert classifier.weight[:, 0].tolist() == pytest.approx([-margin / 2, margin / 2], rel=1e-6)
    assert classifier.bias.tolist() == pytest.approx([0, 0], abs=1e-6)


def test_the_gradient_vanishes_at_the_optimum() -> None:
    features, labels = noisy_linear_map(80)
    classifier = fit_linear(features, labels, classes=3, l2=0.05, tolerance=1e-8)
    excess = (classifier(features).softmax(1) - F.one_hot(labels, 3)) / 80
    # A line search on float64 losses resolves gradients down to about 1e-8.
    assert (excess.T @ features + 0.05 * classifier.weight).abs().max() < 1e-6
    assert excess.sum(0).abs().max() < 1e-6


@pytest.mark.parametrize("l2", [1e-3, 0.1, 10.0])
def test_scikit_learn_finds_the_same_classifier(l2: float) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, labels = noisy_linear_map(120)
    features = features + 3  # not centered, so that the bias matters
    classifier = fit_linear(features, labels, classes=3, l2=l2, tolerance=1e-8)
    oracle = linear_model.LogisticRegression(C=1 / (120 * l2), tol=1e-10, max_iter=10_000)
    oracle.fit(features.numpy(), labels.numpy())
    assert torch.allclose(classifier.weight, torch.tensor(oracle.coef_), rtol=1e-4, atol=1e-6)
    ours = classifier(features).softmax(1)
    assert torch.allclose(ours, torch.tensor(oracle.predict_proba(features.numpy())), atol=1e-6)


def test_infinite_regularization_leaves_the_class_frequencies() -> None:
    features, labels = draw(10, 4), torch.tensor([0] * 5 + [1] * 3 + [2] * 2)
    classifier = fit_linear(features, labels, classes=3, l2=1e8, tolerance=1e-8)
    shares = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64).expand(10, 3)
    assert torch.allclose(classifier(features).softmax(1), shares, atol=1e-6)


def test_the_start_does_not_affect_the_result_and_is_left_unchanged() -> None:
    features, labels = noisy_linear_map(60)
    start = fit_linear(features, labels, classes=3, l2=10.0)
    before = copy.deepcopy(start.state_dict())
    cold, warm = (fit_linear(features, labels, classes=3, l2=0.01, start=s, tolerance=1e-8) for s in (None, start))
    assert torch.allclose(cold.weight, warm.weight, atol=1e-6)
    assert torch.equal(start.weight, before["weight"])
    # One iteration from another start ends elsewhere: the start is really used.
    one = [fit_linear(features, labels, classes=3, l2=0.01, start=s, max_iterations=1) for s in (None, start)]
    assert not torch.allclose(one[0].weight, one[1].weight, atol=1e-3)


def test_copies_of_one_feature_are_fitted_like_that_feature() -> None:
    """64 copies of x with weights w are one feature 8x with the weight 8w, and the same penalty; in float32 as well."""
    one, labels = draw(200, 1).float(), noisy_linear_map(200, dim=1)[1]
    copies = fit_linear(one.expand(200, 64), labels, classes=3, l2=1e-6)
    single = fit_linear(8 * one, labels, classes=3, l2=1e-6)
    assert torch.allclose(copies(one.expand(200, 64)).softmax(1), single(8 * one).softmax(1), atol=1e-3)


def test_large_float32_features_in_few_directions_are_fitted() -> None:
    """Rounding alone makes their Gram matrix indefinite, by more than the weak regularization corrects."""
    directions = torch.linalg.qr(draw(64, 3))[0].T
    compact, labels = noisy_linear_map(200, dim=3)
    features = (1000 * compact @ directions).float()
    classifier = fit_linear(features, labels, classes=3, l2=1e-9)
    oracle = fit_linear(1000 * compact, labels, classes=3, l2=1e-9)
    expected = oracle(1000 * compact).softmax(1).float()
    assert torch.allclose(classifier(features).softmax(1), expected, atol=0.01)


def test_float32_is_close_to_float64() -> None:
    features, labels = noisy_linear_map(100)
    single, double = (fit_linear(f, labels, classes=3, l2=0.01) for f in (features.float(), features))
    assert single.weight.dtype == torch.float32
    assert torch.allclose(single.weight.double(), double.weight, atol=1e-2)


# ----------------------------------------------------------- linear_evaluation


def test_a_linear_map_is_recovered() -> None:
    features = draw(300, 5)
    labels = (features @ draw(5, 3, seed=1)).argmax(1)
    result = linear_evaluation(
        features[:200], labels[:200], features[200:], labels[200:], classes=3, generator=seeded()
    )
    assert result.accuracy >= 0.95
    assert result.l2 < 0.1  # strong regularization flattens the map
    assert result.accuracy.shape == ()


def test_labels_without_a_trace_in_the_features_give_the_largest_class() -> None:
    labels = (torch.arange(100) % 10 >= 7).long()  # 70 of class 0
    noise = draw(200, 3)
    result = linear_evaluation(noise[:100], labels, noise[100:], labels, classes=2, generator=seeded(), config=FEW)
    assert result.accuracy == pytest.approx(0.7, abs=0.08)
    # A collapsed encoder: all features are one point.
    point = torch.full((100, 3), 2.5)
    result = linear_evaluation(point, labels, point, labels, classes=2, generator=seeded(), config=FEW)
    assert result.accuracy == pytest.approx(0.7)


def test_the_test_set_does_not_affect_the_fit() -> None:
    features, labels = noisy_linear_map(100)
    test, answers = noisy_linear_map(50, seed=5)
    plain = linear_evaluation(features, labels, test, answers, classes=3, generator=seeded(), config=FEW)
    other = linear_evaluation(features, labels, 1e3 + test, answers * 0, classes=3, generator=seeded(), config=FEW)
    assert plain[1:] == other[1:]
    assert plain.accuracy != other.accuracy


def test_each_test_image_is_classified_independently() -> None:
    features, labels = noisy_linear_map(100)
    test, answers = noisy_linear_map(50, seed=5)
    order = test[:, 0].argsort()  # so that the means of the halves are far apart

    def accuracy(chosen: torch.Tensor) -> float:
        result = linear_evaluation(
            features, labels, test[chosen], answers[chosen], classes=3, generator=seeded(), config=FEW
        )
        return result.accuracy.item()

    assert accuracy(order) == pytest.approx((accuracy(order[:25]) + accuracy(order[25:])) / 2)


def test_scale_and_shift_of_the_features_do_not_matter() -> None:
    features, labels = noisy_linear_map(100)
    test, answers = noisy_linear_map(50, seed=5)
    results = [
        linear_evaluation(f(features), labels, f(test), answers, classes=3, generator=seeded(), config=FEW)
        for f in (lambda x: x, lambda x: 1e-3 * x - 7)
    ]
    assert results[0] == results[1]


def test_features_are_not_standardized_one_by_one() -> None:
    """The label is in a direction 1000 times weaker than the noise: strong regularization cannot see it."""
    labels = torch.arange(100) % 2
    features = torch.stack([1000 * draw(100), 2.0 * labels - 1], 1)
    strong = replace(FEW, l2_min=1.0, l2_max=10.0)
    weak = replace(FEW, l2_min=1e-9, l2_max=1e-9, l2_count=1, max_iterations=1000)
    accuracies = [
        linear_evaluation(features, labels, features, labels, classes=2, generator=seeded(), config=c).accuracy
        for c in (strong, weak)
    ]
    assert accuracies[0] < 0.7
    assert accuracies[1] == 1


def test_the_choice_is_the_strongest_of_the_best_on_the_held_out_part() -> None:
    labels = torch.arange(60) % 2
    features = torch.stack([2.0 * labels - 1, 0.1 * draw(60)], 1)
    config = LinearProbeConfig(l2_min=1e-4, l2_max=1.0, l2_count=3)
    # Separable and balanced: every regularization is right on all, so the strongest is chosen.
    result = linear_evaluation(features, labels, features, labels, classes=2, generator=seeded(), config=config)
    assert result.l2 == pytest.approx(1.0)
    assert result.held_out_accuracy == 1
    # As in the previous test: only the weakest sees the label.
    hidden = torch.stack([1000 * draw(60), 2.0 * labels - 1], 1)
    config = LinearProbeConfig(l2_min=1e-9, l2_max=1e3, l2_count=3)
    result = linear_evaluation(hidden, labels, hidden, labels, classes=2, generator=seeded(), config=config)
    assert result.l2 == pytest.approx(1e-9)
    assert result.accuracy == 1


def test_the_held_out_part_is_balanced_and_disjoint_from_the_fitted() -> None:
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)[torch.randperm(100, generator=seeded())]
    fitted, held_out = _stratified_split(labels, 0.1, seeded(1))
    assert labels[held_out].bincount().tolist() == [5, 3, 2]
    assert sorted([*fitted.tolist(), *held_out.tolist()]) == list(range(100))
    assert torch.equal(_stratified_split(labels, 0.1, seeded(1))[1], held_out)
    assert not torch.equal(_stratified_split(labels, 0.1, seeded(2))[1].sort()[0], held_out.sort()[0])


def test_the_final_fit_uses_the_whole_training_set() -> None:
    """Two training points, half held out: fitted on one class alone the final classifier could not tell them apart."""
    features, labels = torch.tensor([[-1.0], [1.0]]), torch.tensor([0, 1])
    config = LinearProbeConfig(l2_min=0.01, l2_max=0.01, l2_count=1, held_out=0.5)
    result = linear_evaluation(features, labels, features, labels, classes=2, generator=seeded(), config=config)
    assert result.held_out_accuracy == 0
    assert result.accuracy == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"l2_min": 0.0}, "l2_min"),
        ({"l2_min": 1.0, "l2_max": 0.1}, "l2_max"),
        ({"l2_count": 0}, "l2_count"),
        ({"held_out": 1.0}, "held_out"),
        ({"held_out": 0.0}, "held_out"),
        ({"max_iterations": 0}, "max_iterations"),
    ],
)
def test_settings_that_mean_nothing_are_refused(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LinearProbeConfig(**fields)


def test_data_that_cannot_be_probed_are_refused() -> None:
    features, labels = draw(4, 2), torch.tensor([1, 1, 1, 1])
    with pytest.raises(ValueError, match="only one class, 1"):
        linear_evaluation(features, labels, features, labels, classes=2, generator=seeded())
    labels = torch.tensor([0, 1, 0, 1])
    with pytest.raises(ValueError, match="held_out 0.1 of 4 training examples leaves 4 to fit and 0 to choose by"):
        linear_evaluation(features, labels, features, labels, classes=2, generator=seeded())
    with pytest.raises(ValueError, match="the test set's labels must be from 0 to 1, got 0 to 2"):
        linear_evaluation(features, labels, features, 2 * labels, classes=2, generator=seeded())


def test_no_global_random_number_is_drawn() -> None:
    state = torch.get_rng_state()
    features, labels = noisy_linear_map(40)
    linear_evaluation(features, labels, features, labels, classes=3, generator=seeded(), config=FEW)
    assert torch.equal(torch.get_rng_state(), state)
