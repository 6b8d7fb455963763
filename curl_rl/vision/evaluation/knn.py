"""Weighted k nearest neighbors: evaluates a representation without training."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_SIMILARITIES_AT_ONCE = 2**24  # 64 MiB in float32: bounds the memory for sets of any size


@torch.no_grad()
def knn_predict(
    train_features: Tensor,
    train_labels: Tensor,
    queries: Tensor,
    *,
    classes: int,
    k: int = 200,
    temperature: float = 0.1,
) -> Tensor:
    """Predicts the class of each query from the votes of its k nearest training features.

    Similarity is the cosine s; each neighbor votes for its label with weight exp(s / temperature), and the class with
    the most votes wins (Wu et al. 2018, arXiv 1805.01978, section 3.4). The defaults are those of MoCo's released
    CIFAR-10 example; Wu et al. use a temperature of 0.07.

    Args:
        train_features: ``(N, D)``, of any length: they are L2-normalized here.
        train_labels: ``(N,)`` integers from 0 to ``classes`` − 1.
        queries: ``(M, D)``, on the same device.
        classes: number of classes.
        k: number of neighbors that vote.
        temperature: the smaller, the more the nearest neighbors count.

    Returns:
        ``(M,)`` predicted classes.

    Raises:
        ValueError: k is not between 1 and N, the temperature is not positive, or a set does not fit its labels.
    """
    check_labeled(train_features, train_labels, classes, "training")
    if not 1 <= k <= len(train_features):
        raise ValueError(f"k must be between 1 and the {len(train_features)} training features, got {k}")
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be positive, got {temperature}")
    dtype = torch.promote_types(train_features.dtype, torch.float32)
    keys = F.normalize(train_features.to(dtype), dim=1).T
    rows = max(1, _SIMILARITIES_AT_ONCE // len(train_features))
    return torch.cat(
        [
            _vote(F.normalize(chunk.to(dtype), dim=1) @ keys, train_labels, classes, k, temperature)
            for chunk in queries.split(rows)
        ]
    )


def knn_accuracy(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    *,
    classes: int,
    k: int = 200,
    temperature: float = 0.1,
) -> Tensor:
    """Share of the test set that :func:`knn_predict` classifies correctly, a scalar in [0, 1].

    Args:
        train_features: ``(N, D)``.
        train_labels: ``(N,)``.
        test_features: ``(M, D)``.
        test_labels: ``(M,)``.
        classes: number of classes.
        k: number of neighbors that vote.
        temperature: temperature of their votes.

    Raises:
        ValueError: as in :func:`knn_predict`.
    """
    check_labeled(test_features, test_labels, classes, "test")
    predicted = knn_predict(train_features, train_labels, test_features, classes=classes, k=k, temperature=temperature)
    return (predicted == test_labels).float().mean()


@torch.no_grad()
def check_labeled(examples: Tensor, labels: Tensor, classes: int, name: str) -> None:
    """Refuses examples ``(N, ...)`` that do not fit their labels ``(N,)``; ``name`` names the set in messages.

    Raises:
        ValueError: the set is empty, the numbers differ, a label is out of range, or a feature is not finite.
    """
    # On CUDA a label out of range would abort the process with an uninformative assertion.
    if len(examples) == 0:
        raise ValueError(f"the {name} set is empty")
    if labels.shape != examples.shape[:1]:
        raise ValueError(f"the {name} set has {len(examples)} examples, but labels of shape {tuple(labels.shape)}")
    lowest, highest = (int(bound) for bound in labels.aminmax())
    if lowest < 0 or highest >= classes:
        raise ValueError(f"the {name} set's labels must be from 0 to {classes - 1}, got {lowest} to {highest}")
    if examples.is_floating_point() and not examples.isfinite().all():
        raise ValueError(f"the {name} set holds features that are not finite: the encoder has diverged")


def _vote(similarities: Tensor, labels: Tensor, classes: int, k: int, temperature: float) -> Tensor:
    nearest = similarities.topk(k, dim=1)
    # Relative to the nearest neighbor no weight overflows at any temperature, and the winner stays the same.
    weights = ((nearest.values - nearest.values[:, :1]) / temperature).exp()
    votes = weights.new_zeros(len(weights), classes).scatter_add_(1, labels[nearest.indices], weights)
    return votes.argmax(1)
