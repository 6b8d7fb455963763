"""DeepCluster's loss by hand, what its banks hold, and its clusterings from the definition of a fixed point."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from curl_rl import AuxiliaryLoss, PixelEncoder
from curl_rl.encoders import EncoderConfig
from curl_rl.objectives import (
    BatchInfo,
    DataSpec,
    DeepCluster,
    DeepClusterConfig,
    Features,
    FeatureSpec,
    ObjectiveConfigs,
    ObjectiveUser,
    build_objective,
)
from helpers.random_tensors import draw, unit

COUNT = 12
SPEC = FeatureSpec(4, (2, 3, 3))


def features(vectors: Tensor) -> Features:
    return Features(vectors, torch.zeros(len(vectors), *SPEC.map_shape))


def make(**settings: Any) -> DeepCluster:
    """With the identity as its head."""
    config = DeepClusterConfig(**({"clusters": 3, "dim": 4, "iterations": 100} | settings))
    objective = DeepCluster(SPEC, config, count=COUNT).double()
    objective.head = nn.Identity()  # type: ignore[assignment]
    return objective


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def remember_all(objective: DeepCluster, vectors: Tensor) -> None:
    for indices in torch.arange(len(vectors)).split(5):
        objective.remember(features(vectors[indices]), BatchInfo(indices))


def test_every_view_is_classified_by_the_cluster_of_its_image() -> None:
    objective = make(clusterings=2, local_views=1)
    objective.centroids.copy_(unit(6, 4).view(2, 3, 4))
    objective.assignment[:, [7, 2, 9]] = torch.tensor([[1, 0, -1], [2, 2, 0]])  # image 9 has no cluster in the first
    views = [draw(3, 4, seed=view) for view in range(3)]
    losses = []
    for h, image, cluster in ((0, 0, 1), (0, 1, 0), (1, 0, 2), (1, 1, 2), (1, 2, 0)):
        for view in views:
            embedding = view[image] / view[image].norm()
            exponentials = [math.exp(embedding @ centroid / 0.1) for centroid in objective.centroids[h]]
            losses.append(-math.log(exponentials[cluster] / sum(exponentials)))
    result = objective([features(view) for view in views], [], BatchInfo(torch.tensor([7, 2, 9])))
    assert result.loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-10)


def test_equal_clusterings_are_one_clustering() -> None:
    one, three = make(clusterings=1), make(clusterings=3)
    for objective in (one, three):
        objective.centroids.copy_(unit(3, 4).expand_as(objective.centroids))
        objective.assignment.copy_((torch.arange(COUNT) % 3).expand_as(objective.assignment))
    online = [features(draw(5, 4, seed=view)) for view in range(2)]
    losses = [objective(online, [], BatchInfo(torch.arange(5))).loss.item() for objective in (one, three)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


def test_steps_overwrite_the_banks_of_the_two_views() -> None:
    objective, start = make(), draw(COUNT, 4)
    remember_all(objective, start)
    normalized = nn.functional.normalize(start)
    for bank in (objective.first_bank, objective.second_bank):
        assert bank.known.all()
        assert torch.allclose(bank.embeddings, normalized)
    views = [draw(3, 4, seed=view) for view in (1, 2)]
    indices = torch.tensor([4, 11, 0])
    objective.after_step(objective([features(view) for view in views], [], BatchInfo(indices)).carry, torch.tensor(1.0))
    for bank, view in zip((objective.first_bank, objective.second_bank), views, strict=True):
        expected = normalized.clone()
        expected[indices] = nn.functional.normalize(view)
        assert torch.allclose(bank.embeddings, expected)


def test_clusterings_take_turns_with_the_banks_and_are_fixed_points() -> None:
    objective = make(clusterings=3)
    for number, bank in enumerate((objective.first_bank, objective.second_bank)):
        bank.update(torch.arange(COUNT), unit(COUNT, 4, seed=number), momentum=0)
    assert (objective.assignment == -1).all()
    metrics = objective.between_epochs(0, seeded())
    for h, number in enumerate((0, 1, 0)):
        rows, centroids, assignment = unit(COUNT, 4, seed=number), objective.centroids[h], objective.assignment[h]
        assert torch.equal((rows @ centroids.T).argmax(1), assignment)
        for cluster in range(3):
            mean = rows[assignment == cluster].mean(0)
            assert torch.allclose(centroids[cluster], mean / mean.norm(), rtol=1e-10)
    assert metrics == {"used": 1.0}
    assert not torch.equal(objective.centroids[0], objective.centroids[2]), "each starts from other rows"
    # The same banks again: other starting rows, and the agreement with the clusters before.
    assert objective.between_epochs(1, seeded(1)).keys() == {"used", "stability"}
    assert objective.between_epochs(2, seeded(1))["stability"].item() == pytest.approx(1)


def test_an_image_alone_in_its_batch_waits_for_its_first_step() -> None:
    """Batch norm in the head needs two samples."""
    torch.manual_seed(0)
    objective = DeepCluster(SPEC, DeepClusterConfig(clusters=3, dim=4, clusterings=1), count=11).double()
    remember_all(objective, draw(11, 4))
    objective.between_epochs(0, seeded())
    assert (objective.assignment[0] >= 0).tolist() == [True] * 10 + [False]
    online = [features(draw(3, 4, seed=view)) for view in range(2)]
    objective.after_step(objective(online, [], BatchInfo(torch.tensor([10, 3, 5]))).carry, torch.tensor(1.0))
    assert 0 <= objective.between_epochs(1, seeded(1))["stability"] <= 1
    assert (objective.assignment >= 0).all()


def test_all_images_pass_before_the_first_epoch_only() -> None:
    assert [make().wants_all(epoch) for epoch in range(3)] == ["online", None, None]


def test_more_clusters_than_images_or_distinct_embeddings_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^objectives.deepcluster.clusters must be at most 12, the number of images, g"
    ):
        make(clusters=13)
    objective = make(clusters=3)
    remember_all(objective, draw(1, 4).expand(COUNT, 4))
    with pytest.raises(
        ValueError, match=r"^the embeddings do not form objectives.deepcluster.clusters 3: k must be at"
    ):
        objective.between_epochs(0, seeded())


def test_users_without_epochs_are_sent_to_its_streaming_form() -> None:
    replay = ObjectiveUser("agent.objective", "a replay", frozenset({"actions"}))
    message = "^agent.objective deepcluster needs epochs and indices, which a replay does not have: take swav$"
    with pytest.raises(ValueError, match=message):
        build_objective("deepcluster", SPEC, ObjectiveConfigs(), DataSpec(), replay)
    encoder = PixelEncoder((3, 10, 10), EncoderConfig(filters=2, strides=(2,), latent=4))
    with pytest.raises(
        ValueError, match=r"^objective deepcluster needs epochs, which .* loop does not have: take swav$"
    ):
        AuxiliaryLoss(encoder, "deepcluster", data=DataSpec(COUNT))


def test_the_published_settings_are_the_defaults() -> None:
    """The released code's scripts for ImageNet."""
    objective = DeepCluster(FeatureSpec(2048, (1, 1, 1)), count=3000)
    assert objective.centroids.shape == (3, 3000, 128)
    assert (objective.config.temperature, objective.config.iterations) == (0.1, 10)
