"""AMDIM against loops over images and places, and as the InfoNCE that it is on maps of one place."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from curl_rl.losses import info_nce
from curl_rl.objectives import AMDIM, AMDIMConfig, BatchInfo, Features, FeatureSpec
from helpers.random_tensors import draw

SIZE = 3


def make(features: FeatureSpec, **settings: Any) -> AMDIM:
    """With the identity in place of norms and blocks: all maps have the vector's size."""
    objective = AMDIM(features, AMDIMConfig(**settings)).double()
    objective.vector_norm = nn.Identity()  # type: ignore[assignment]
    objective.map_block = nn.Identity()  # type: ignore[assignment]
    if objective.middle_block is not None:
        objective.middle_block = nn.Identity()  # type: ignore[assignment]
    return objective


def view(batch: int, seed: int, features: FeatureSpec) -> Features:
    middle = None if features.middle_shape is None else 3 * draw(batch, *features.middle_shape, seed=seed + 2)
    vector, feature_map = draw(batch, features.dim, seed=seed), draw(batch, *features.map_shape, seed=seed + 1)
    return Features(3 * vector, 3 * feature_map, middle)


def loss_of(objective: AMDIM, *online: Features) -> float:
    loss: float = objective(list(online), [], BatchInfo()).loss.item()
    return loss


def by_hand(first: Features, second: Features, clip: float, weight: float) -> float:
    """Each term's cross-entropy over a positive and the places of the other images, and the penalty, in loops."""
    total = 0.0
    for one, other in ((first, second), (second, first)):
        assert other.middle is not None
        vector, places = one.vector[:, :, None], one.map.flatten(2)
        for sources, targets in (
            (vector, other.map.flatten(2)),
            (vector, other.middle.flatten(2)),
            (places, other.map.flatten(2)),
        ):
            total += term(sources, targets, clip, weight) / 2
    return total


def term(sources: Tensor, targets: Tensor, clip: float, weight: float) -> float:
    batch, size, count = sources.shape
    losses, squares = [], []
    for i, s in product(range(batch), range(count)):
        raw = torch.einsum("d,jdp->jp", sources[i, :, s], targets) / math.sqrt(size)
        squares += raw.square().flatten().tolist()
        clipped = clip * torch.tanh(raw / clip)
        rest = sum(math.exp(float(value)) for j in range(batch) if j != i for value in clipped[j])
        losses += [math.log(math.exp(float(own)) + rest) - float(own) for own in clipped[i]]
    return sum(losses) / len(losses) + weight * sum(squares) / len(squares)


def test_the_loss_is_its_three_terms_both_ways_by_hand() -> None:
    features = FeatureSpec(SIZE, (SIZE, 1, 2), (SIZE, 2, 2))
    first, second = view(3, 0, features), view(3, 5, features)
    objective = make(features, clip=2.0, regularization=0.05)
    assert loss_of(objective, first, second) == pytest.approx(by_hand(first, second, 2.0, 0.05), rel=1e-9)


def test_one_place_without_a_bound_is_info_nce_of_the_scaled_scores() -> None:
    features = FeatureSpec(SIZE, (SIZE, 1, 1))
    first, second = view(4, 0, features), view(4, 5, features)
    expected = 0.0
    for one, other in ((first, second), (second, first)):
        for sources in (one.vector, one.map[:, :, 0, 0]):
            expected += float(info_nce(sources @ other.map[:, :, 0, 0].T / math.sqrt(SIZE))) / 2
    objective = make(features, clip=1e6, regularization=0.0)
    assert loss_of(objective, first, second) == pytest.approx(expected, rel=1e-9)


def test_swapping_the_views_changes_nothing() -> None:
    features = FeatureSpec(6, (4, 2, 2), (3, 4, 4))
    torch.manual_seed(0)
    objective = AMDIM(features).double()
    first, second = view(4, 0, features), view(4, 5, features)
    assert loss_of(objective, first, second) == pytest.approx(loss_of(objective, second, first), rel=1e-12)


def test_large_maps_are_averaged_over_regions() -> None:
    features = FeatureSpec(SIZE, (SIZE, 2, 2), (SIZE, 4, 4))
    views = [view(3, seed, features) for seed in (0, 5)]
    assert all(one.middle is not None for one in views)
    pooled = [
        one._replace(middle=one.middle.unflatten(3, (2, 2)).unflatten(2, (2, 2)).mean((3, 5)))  # type: ignore[union-attr]
        for one in views
    ]
    small = features._replace(middle_shape=(SIZE, 2, 2))
    assert loss_of(make(features, pool=2), *views) == pytest.approx(loss_of(make(small), *pooled), rel=1e-12)


def test_the_blocks_start_as_the_identity() -> None:
    torch.manual_seed(0)
    objective = AMDIM(FeatureSpec(6, (4, 2, 2)))
    places = torch.randn(50, 4)
    normalized = (places - places.mean(0)) / places.std(0, correction=0)
    assert torch.allclose(objective.map_block(places)[:, :4], normalized, atol=0.1)
