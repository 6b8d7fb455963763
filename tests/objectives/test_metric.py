"""Methods of metric learning: their losses by hand, with labels and without, their limits, and their refusals."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curl_rl import AuxiliaryLoss, PixelEncoder
from curl_rl.encoders import EncoderConfig
from curl_rl.losses import semi_hard_triplet, two_view_scores
from curl_rl.objectives import (
    METHODS,
    BatchInfo,
    Curl,
    DataSpec,
    Features,
    FeatureSpec,
    ObjectiveConfigs,
    ObjectiveUser,
    Result,
    build_objective,
)
from helpers.random_tensors import draw

SPEC = FeatureSpec(4, (2, 3, 3))
METRIC = ("pair_margin", "triplet", "n_pair")
VIEWS = draw(4, 4), draw(4, 4, seed=1)
LABELS = [2, 0, 2, 1]


def result_of(name: str, views: tuple[Tensor, ...] = VIEWS, labels: list[int] | None = None, **settings: Any) -> Result:
    """With the identity as its head; supervised if there are labels."""
    method = METHODS[name]
    config = method.config(supervised=labels is not None, **settings)
    objective = method.objective.build(SPEC, config, DataSpec()).double()
    objective.head = nn.Identity()
    online = [Features(view, torch.zeros(len(view), *SPEC.map_shape)) for view in views]
    result: Result = objective(online, [], BatchInfo(labels=None if labels is None else torch.tensor(labels)))
    return result


def distances(classes: list[int]) -> tuple[dict[tuple[int, int], float], list[tuple[int, int]], list[tuple[int, int]]]:
    """Squared distances of the normalized embeddings; the ordered pairs of one class and of different classes."""
    rows = [row / row.norm() for view in VIEWS for row in view]
    pairs = [(i, j) for i in range(8) for j in range(8) if i != j]
    same = [(i, j) for i, j in pairs if classes[i % 4] == classes[j % 4]]
    return {(i, j): float((rows[i] - rows[j]).square().sum()) for i, j in pairs}, same, sorted(set(pairs) - set(same))


CLASSES = [None, LABELS]


@pytest.mark.parametrize("labels", CLASSES)
def test_pair_margin_pair_by_pair(labels: list[int] | None) -> None:
    distance, same, other = distances(labels or [0, 1, 2, 3])
    assert len(same) == (12 + 4 if labels else 8)
    result = result_of("pair_margin", labels=labels, margin=1.5)
    attraction = sum(distance[pair] for pair in same) / len(same)
    repulsion = [max(1.5 - distance[pair], 0) for pair in other]
    assert result.loss.item() == pytest.approx(attraction + sum(repulsion) / len(repulsion), rel=1e-10)
    assert result.metrics["active"].item() == pytest.approx(sum(map(bool, repulsion)) / len(repulsion))
    assert 0 < result.metrics["active"] < 1


@pytest.mark.parametrize("labels", CLASSES)
@pytest.mark.parametrize("mining", ["all", "semi_hard", "hard"])
def test_triplets_one_by_one(labels: list[int] | None, mining: str) -> None:
    distance, same, other = distances(labels or [0, 1, 2, 3])
    losses = []
    for anchor in range(8):
        near = [distance[pair] for pair in same if pair[0] == anchor]
        far = [distance[pair] for pair in other if pair[0] == anchor]
        if mining == "all":
            losses += [max(p - n + 0.9, 0) for p in near for n in far]
        elif mining == "hard":
            losses.append(max(max(near) - min(far) + 0.9, 0))
        else:
            losses += [max(p - min([n for n in far if n > p], default=math.inf) + 0.9, 0) for p in near]
    result = result_of("triplet", labels=labels, margin=0.9, mining=mining)
    assert result.loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-10)
    assert result.metrics["active"].item() == pytest.approx(sum(map(bool, losses)) / len(losses))
    assert mining == "hard" or 0 < result.metrics["active"] < 1


def test_semi_hard_triplets_of_views_are_twice_simclrs_at_half_the_margin() -> None:
    """A squared distance is 2 less twice the cosine."""
    cosines = two_view_scores(*(F.normalize(view) for view in VIEWS))
    assert result_of("triplet", margin=0.9).loss.item() == pytest.approx(2 * semi_hard_triplet(cosines, 0.45).item())


@pytest.mark.parametrize("labels", CLASSES)
def test_n_pair_tuple_by_tuple(labels: list[int] | None) -> None:
    first, second = VIEWS
    classes = labels or [0, 1, 2, 3]
    losses = []
    for a in range(4):
        for p in range(4):
            if classes[a] == classes[p]:
                negatives = [n for n in range(4) if classes[n] != classes[a]]
                exceeding = [math.exp(first[a] @ second[n] - first[a] @ second[p]) for n in negatives]
                losses.append(math.log(1 + sum(exceeding)))
    square = float(torch.cat(VIEWS).square().sum() / 8)
    result = result_of("n_pair", labels=labels, regularization=0.3)
    assert result.loss.item() == pytest.approx(sum(losses) / len(losses) + 0.15 * square, rel=1e-10)
    assert result.metrics["embedding_norm"].item() == pytest.approx(math.sqrt(square))


def test_n_pair_without_labels_and_regularization_is_curl_with_the_identity_for_w() -> None:
    curl = Curl(SPEC).double()
    curl.W = nn.Parameter(torch.eye(4, dtype=torch.float64))
    query, key = (Features(view, torch.zeros(4, *SPEC.map_shape)) for view in VIEWS)
    expected = curl([query], [key], BatchInfo())
    result = result_of("n_pair", regularization=0.0)
    assert result.loss.item() == pytest.approx(expected.loss.item(), rel=1e-12)
    assert result.metrics["accuracy"] == expected.metrics["accuracy"]


@pytest.mark.parametrize("name", METRIC)
def test_labels_that_all_differ_or_are_missing_change_nothing(name: str) -> None:
    expected = result_of(name)
    for labels in ([5, 3, 0, 7], [-1, -1, -1, -1], [-1, 0, -1, 4]):
        result = result_of(name, labels=labels)
        assert result.loss.item() == pytest.approx(expected.loss.item(), rel=1e-12)
        assert result.metrics["accuracy"] == expected.metrics["accuracy"]
    assert result_of(name, labels=LABELS).loss.item() != pytest.approx(expected.loss.item(), rel=1e-3)


@pytest.mark.parametrize("name", METRIC)
def test_labels_are_needed_only_if_asked_for(name: str) -> None:
    replay = ObjectiveUser("agent.objective", "a replay", frozenset({"actions"}))
    assert build_objective(name, SPEC, None, DataSpec(classes=1), replay) is not None
    supervised = ObjectiveConfigs(**{name: METHODS[name].config(supervised=True)})
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the text is compared below)
        build_objective(name, SPEC, supervised, DataSpec(), replay)
    assert str(error.value) == (
        f"agent.objective {name} needs labels, which a replay does not have: take objectives.{name}.supervised false"
    )
    with pytest.raises(ValueError, match=r"^labels must have at least 2 classes, got 1: set supervised false$"):
        build_objective(name, SPEC, supervised, DataSpec(classes=1))


@pytest.mark.parametrize("name", METRIC)
def test_your_own_loop_needs_no_labels(name: str) -> None:
    encoder = PixelEncoder((3, 10, 10), EncoderConfig(filters=2, strides=(2,), latent=4))
    aux = AuxiliaryLoss(encoder, name)
    aux(torch.randint(256, (6, 3, 12, 12), dtype=torch.uint8)).backward()
    assert all(parameter.grad is not None for parameter in [*encoder.parameters(), *aux.new_parameters()])
