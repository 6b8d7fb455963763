"""ORE's contrastive clustering against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from curl_rl import AuxiliaryLoss, PixelEncoder
from curl_rl.encoders import Features, FeatureSpec
from curl_rl.losses import prototype_margin
from curl_rl.objectives import (
    BatchInfo,
    DataSpec,
    ObjectiveConfigs,
    ObjectiveUser,
    OpenWorldClusters,
    OpenWorldConfig,
    build_objective,
)

PLANE = FeatureSpec(2, (2, 1, 1))


def step(objective: OpenWorldClusters, vectors: list[list[float]], labels: list[int]) -> Tensor:
    features = torch.tensor(vectors, requires_grad=True)
    result = objective([Features(features, features[:, :0])], [], BatchInfo(labels=torch.tensor(labels)))
    objective.after_step(result.carry, torch.ones(()))
    return result.loss.detach()


def test_hinge_by_hand() -> None:
    # Prototypes (0, 0), (3, 4), (0, 10), margin 6.
    prototypes = torch.tensor([[0.0, 0], [3, 4], [0, 10]])
    samples = torch.tensor([[0.0, 0], [3, 4], [5, 5]])
    labels = torch.tensor([0, 2, -1])
    distance = torch.cdist(samples, prototypes)
    # Of the first 0 to its own, 6 - 5 and max(6 - 10, 0); of the second √45 to its own, 6 - 5 and 6 - 0; then none.
    every_class = torch.tensor([True, True, True])
    expected = ((0 + 1 + 0) + (math.sqrt(45) + 1 + 6)) / 3
    assert prototype_margin(distance, labels, every_class, 6.0).item() == pytest.approx(expected)
    # Without the second prototype.
    two = torch.tensor([True, False, True])
    assert prototype_margin(distance, labels, two, 6.0).item() == pytest.approx((math.sqrt(45) + 1) / 3)
    # A sample of a class without a prototype is only repelled by the others.
    second = torch.tensor([False, True, True])
    assert prototype_margin(distance, labels, second, 6.0).item() == pytest.approx((1 + math.sqrt(45) + 6) / 3)


@pytest.mark.parametrize("counts", [(7, 2, 1), (4, 3, 3), (5, 5, 0)])
def test_only_a_class_that_is_likelier_than_not_attracts(counts: tuple[int, ...]) -> None:
    # Ten samples in one place, of different classes: the forces of the three prototypes are π - (1 - π).
    prototypes = torch.tensor([[3.0, 0], [0, 4], [-2, -2]])
    place = torch.zeros(2, requires_grad=True)
    labels = torch.arange(3).repeat_interleave(torch.tensor(counts))
    distance = torch.cdist(place.expand(10, 2), prototypes)
    (gradient,) = torch.autograd.grad(prototype_margin(distance, labels, torch.ones(3, dtype=torch.bool), 6.0), place)
    away = -prototypes / prototypes.norm(dim=1, keepdim=True)
    expected = sum((2 * count / 10 - 1) * direction for count, direction in zip(counts, away, strict=True))
    assert torch.allclose(gradient, torch.as_tensor(expected), atol=1e-6)


def test_nothing_happens_before_the_burn_in_ends() -> None:
    objective = OpenWorldClusters(PLANE, 2, OpenWorldConfig(margin=4.0, burn_in=3, every=2))
    assert [step(objective, [[1.0, 1]], [0]).item() for _ in range(3)] == [0, 0, 0]
    assert step(objective, [[1.0, 2]], [0]).item() == 1  # now the first class has a prototype, at (1, 1)


def test_prototypes_are_means_of_the_newest_and_move_with_momentum() -> None:
    objective = OpenWorldClusters(PLANE, 3, OpenWorldConfig(margin=4.0, queue=2, burn_in=1, every=2, momentum=0.75))
    step(objective, [[0.0, 0], [2, 0], [4, 0], [7, 7]], [0, 0, 0, 1])
    # Two are kept of each class: (2, 0) and (4, 0).
    assert objective.prototypes.tolist() == [[3, 0], [7, 7], [0, 0]]
    assert objective.moves.tolist() == [1, 1, 0]
    step(objective, [[6.0, 0], [9, 9]], [0, -1])
    assert objective.prototypes.tolist() == [[3, 0], [7, 7], [0, 0]], "not due"
    step(objective, [[8.0, 0], [1, 2]], [0, 2])
    # Class 0: 0.75 · 3 + 0.25 · (6 + 8)/2; class 1: its mean stays; class 2 is new, and starts at its mean.
    assert objective.prototypes.tolist() == [[4, 0], [7, 7], [1, 2]]
    assert objective.moves.tolist() == [2, 2, 1]


def test_distances_and_accuracy() -> None:
    objective = OpenWorldClusters(PLANE, 2, OpenWorldConfig(margin=4.0, burn_in=1))
    step(objective, [[0.0, 0], [10, 0]], [0, 1])
    features = torch.tensor([[1.0, 0], [4, 0], [0, 3]])
    result = objective([Features(features, features)], [], BatchInfo(labels=torch.tensor([0, 1, -1])))
    assert result.metrics["own_distance"].item() == (1 + 6) / 2
    assert result.metrics["other_distance"].item() == (9 + 4) / 2
    assert result.metrics["accuracy"].item() == 0.5


def test_it_needs_labels_and_a_number_of_classes() -> None:
    with pytest.raises(ValueError, match=r"^agent.objective open_world needs labels, which a replay does not have"):
        build_objective("open_world", PLANE, user=ObjectiveUser("agent.objective", "a replay", frozenset()))
    with pytest.raises(ValueError, match=r"^objectives.open_world needs the number of classes, got none"):
        build_objective("open_world", PLANE)
    with pytest.raises(ValueError, match=r"^labels must have at least 2 classes, got 1: take simclr$"):
        build_objective("open_world", PLANE, data=DataSpec(classes=1))
    features = Features(torch.zeros(3, 2), torch.zeros(3, 2))
    objective = OpenWorldClusters(PLANE, 2)
    with pytest.raises(ValueError, match=r"^labels must be \(3,\), one for each sample, got none$"):
        objective([features], [], BatchInfo())


def test_it_works_in_any_training_loop() -> None:
    torch.manual_seed(0)
    encoder = PixelEncoder((3, 28, 28))
    configs = ObjectiveConfigs(open_world=OpenWorldConfig(burn_in=1, every=1))
    objective = build_objective("open_world", encoder.feature_spec, configs, DataSpec(classes=3))
    assert objective is not None
    aux = AuxiliaryLoss(encoder, objective)
    observations = torch.randint(256, (6, 3, 32, 32), dtype=torch.uint8)
    labels = BatchInfo(labels=torch.tensor([0, 1, 2, 0, 1, -1]))
    assert aux(observations, batch=labels).item() == 0
    loss = aux(observations, batch=labels)
    loss.backward()
    assert loss.item() > 0
    assert all(parameter.grad is not None for parameter in encoder.parameters())
