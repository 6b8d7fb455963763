"""Linear probes: how well a linear classifier predicts the labels from frozen features.

:func:`linear_evaluation` evaluates a finished encoder by SimCLR's protocol;
:class:`curl_rl.pretraining.online_probe.OnlineProbe` monitors one in training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from curl_rl.encoders.heads import zero_linear
from curl_rl.ranges import at_least, check_ranges, within
from curl_rl.vision.evaluation.knn import check_labeled


@dataclass(frozen=True)
class LinearProbeConfig:
    """Linear evaluation of frozen features (SimCLR, arXiv 2002.05709, appendix B.8)."""

    l2_min: float = 1e-6
    """Weakest regularization to try."""
    l2_max: float = 1e5
    """Strongest regularization to try."""
    l2_count: Annotated[int, at_least(1)] = 45
    """Number of regularizations to try, evenly spaced on a logarithmic scale."""
    held_out: Annotated[float, within("(0, 1)")] = 0.1
    """Share of the training set held out for choosing the regularization."""
    max_iterations: Annotated[int, at_least(1)] = 1000
    """Maximum L-BFGS iterations per regularization."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if not 0 < self.l2_min <= self.l2_max:
            raise ValueError(f"l2_min and l2_max must be 0 < l2_min <= l2_max, got {self.l2_min} and {self.l2_max}")


class LinearEvaluation(NamedTuple):
    """Result of linear evaluation."""

    accuracy: Tensor
    """Top-1 on the test set, a scalar in [0, 1]."""
    l2: float
    """The chosen regularization."""
    held_out_accuracy: Tensor
    """Top-1 on the held-out part of the training set, on which it was chosen."""


def fit_linear(
    features: Tensor,
    labels: Tensor,
    *,
    classes: int,
    l2: float,
    start: nn.Linear | None = None,
    max_iterations: int = 1000,
    tolerance: float = 1e-4,
) -> nn.Linear:
    """Multinomial logistic regression by L-BFGS on the full batch.

    Minimizes mean cross-entropy + l2 / 2 · ‖W‖²; the bias is not regularized. (scikit-learn's C is 1 / (N · l2).)

    Args:
        features: ``(N, D)``, float32 or float64, used without preprocessing.
        labels: ``(N,)`` integers from 0 to ``classes`` − 1.
        classes: number of classes.
        l2: strength of the regularization, above 0.
        start: initial classifier, left unchanged; zeros if None. The problem is convex, so this affects only the time.
        max_iterations: maximum L-BFGS iterations.
        tolerance: stop when no entry of the gradient is larger, in coordinates whose curvature is near 1 as long as the
            classifier is uncertain. Below 1e-8 it drowns in float64's rounding of the loss.

    Returns:
        The classifier, D to ``classes``.
    """
    classifier = zero_linear(features.shape[1], classes, features).requires_grad_(False)
    if start is not None:
        classifier.load_state_dict(start.state_dict())
    # In these coordinates L-BFGS takes tens of steps; on the weights themselves, whose curvatures differ by orders of
    # magnitude, it took hundreds.
    basis = _curvature(features, classes, l2)
    rows = torch.cat([classifier.weight, classifier.bias[:, None]], 1).double()
    coordinates = (rows @ basis).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [coordinates],
        max_iter=max_iterations,
        max_eval=2 * max_iterations,
        history_size=20,
        tolerance_grad=tolerance,
        tolerance_change=0,  # the loss stops changing long before the gradient vanishes
        line_search_fn="strong_wolfe",
    )

    def weight_and_bias() -> tuple[Tensor, Tensor]:
        rows = torch.linalg.solve_triangular(basis, coordinates, upper=False, left=False)
        return rows[:, :-1], rows[:, -1]

    def closure() -> Tensor:
        optimizer.zero_grad()
        weight, bias = weight_and_bias()
        logits = F.linear(features, weight.to(features.dtype), bias.to(features.dtype))
        # The line search compares losses that differ in the eighth digit, so the loss is always summed in float64.
        loss = F.cross_entropy(logits.double(), labels) + l2 / 2 * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    with torch.no_grad():
        weight, bias = weight_and_bias()
        classifier.weight.copy_(weight)
        classifier.bias.copy_(bias)
    return classifier


def linear_evaluation(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    *,
    classes: int,
    generator: torch.Generator,
    config: LinearProbeConfig = LinearProbeConfig(),
) -> LinearEvaluation:
    """Top-1 accuracy of L2-regularized logistic regression on frozen features, as in SimCLR's appendix B.8.

    The regularization is chosen by accuracy on a stratified held-out part of the training set (the strongest among
    equally good ones); the classifier is then refitted on the whole training set and tested once.

    The features are centered, which only moves the bias, and divided by a single number, so that their mean square is 1
    and a regularization means the same for every encoder. They are not standardized individually: directions in which
    an encoder varies little stay small, as in the paper. Mean and scale come from the training set alone.

    Args:
        train_features: ``(N, D)``.
        train_labels: ``(N,)`` integers from 0 to ``classes`` − 1.
        test_features: ``(M, D)``, on the same device.
        test_labels: ``(M,)``.
        classes: number of classes.
        generator: draws the held-out part.
        config: regularizations to try, held-out share.

    Raises:
        ValueError: a set does not fit its labels, or the training set has a single class or is too small to hold out a
            part.
    """
    check_labeled(train_features, train_labels, classes, "training")
    check_labeled(test_features, test_labels, classes, "test")
    if len(train_labels.unique()) < 2:
        raise ValueError(f"the training set has only one class, {int(train_labels[0])}: a probe needs at least two")
    dtype = torch.promote_types(train_features.dtype, torch.float32)
    train, test = train_features.detach().to(dtype), test_features.detach().to(dtype)
    mean = train.mean(0)
    scale = (train - mean).square().mean().sqrt().clamp_min(torch.finfo(dtype).tiny)
    train, test = (train - mean) / scale, (test - mean) / scale

    fitted, held_out = _stratified_split(train_labels, config.held_out, generator)
    candidates: list[float] = np.geomspace(config.l2_max, config.l2_min, config.l2_count).tolist()
    features, labels = train[fitted], train_labels[fitted]
    classifier: nn.Linear | None = None
    accuracies = []
    # From strong to weak, each fit starting from the previous one.
    for l2 in tqdm(candidates, desc="linear probe", unit="fit", disable=None):
        classifier = fit_linear(
            features, labels, classes=classes, l2=l2, start=classifier, max_iterations=config.max_iterations
        )
        accuracies.append(_accuracy(classifier, train[held_out], train_labels[held_out]))
    held_out_accuracy = torch.stack(accuracies)
    best = held_out_accuracy.tolist().index(float(held_out_accuracy.max()))

    final = fit_linear(train, train_labels, classes=classes, l2=candidates[best], max_iterations=config.max_iterations)
    return LinearEvaluation(_accuracy(final, test, test_labels), candidates[best], held_out_accuracy[best])


def _curvature(features: Tensor, classes: int, l2: float) -> Tensor:
    """Cholesky factor ``(D + 1, D + 1)`` of the regularized loss's Hessian where all classes are equally likely.

    For one class's row of weight and bias it is the mean of x̃x̃ᵀ / classes over the features x̃ with a 1 appended, plus
    l2 on the diagonal except for the bias.
    """
    extended = F.pad(features, (0, 1), value=1.0)
    curvature = (extended.T @ extended).double() / (len(features) * classes)
    # With dead or duplicate features, rounding can turn a curvature of zero negative.
    curvature.diagonal().add_(2 * torch.finfo(features.dtype).eps * curvature.trace())
    curvature.diagonal()[:-1].add_(l2)
    return torch.linalg.cholesky(curvature)


def _stratified_split(labels: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Splits indices into two random stratified parts; the second has round(share · N)."""
    held_out = round(share * len(labels))
    if not 1 <= held_out < len(labels):
        raise ValueError(
            f"held_out {share} of {len(labels)} training examples leaves {len(labels) - held_out} to fit "
            f"and {held_out} to choose by: both need at least one"
        )
    order = torch.randperm(len(labels), generator=generator, device=generator.device).to(labels.device)
    by_class = order[labels[order].argsort(stable=True)]
    # Evenly spaced positions in a list sorted by class take each class's share.
    places = (torch.arange(held_out, device=labels.device) + 0.5) * len(labels) / held_out
    chosen = torch.zeros(len(labels), dtype=torch.bool, device=labels.device)
    chosen[places.long()] = True
    return by_class[~chosen], by_class[chosen]


def _accuracy(classifier: nn.Linear, features: Tensor, labels: Tensor) -> Tensor:
    return (classifier(features).argmax(1) == labels).float().mean()
