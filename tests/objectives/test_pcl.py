"""PCL against MoCo and InstDisc, whose losses it adds up, its equations by hand, and its clusters by definition."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from curl_rl.objectives import (
    PCL,
    BatchInfo,
    DataSpec,
    Features,
    FeatureSpec,
    InstDisc,
    InstDiscConfig,
    MoCo,
    MoCoConfig,
    ObjectiveUser,
    PCLConfig,
    Result,
    build_objective,
)
from helpers.random_tensors import draw, unit

COUNT = 12
SPEC = FeatureSpec(4, (2, 3, 3))


def features(vectors: Tensor) -> Features:
    return Features(vectors, torch.zeros(len(vectors), *SPEC.map_shape))


def make(**settings: Any) -> PCL:
    """With the identity as its head and its slow head."""
    objective = build(**settings)
    objective.head, objective.key_head = nn.Identity(), nn.Identity()  # type: ignore[assignment]
    return objective


def build(**settings: Any) -> PCL:
    torch.manual_seed(0)
    config = PCLConfig(**({"clusters": (3,), "warmup_epochs": 0, "dim": 4, "queue": 9} | settings))
    return PCL(SPEC, config, count=COUNT).double()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cluster(objective: PCL, vectors: Tensor, epoch: int = 0) -> dict[str, Tensor]:
    for indices in torch.arange(len(vectors)).split(5):
        objective.remember(features(vectors[indices]), BatchInfo(indices))
    metrics: dict[str, Tensor] = objective.between_epochs(epoch, seeded(epoch))
    return metrics


def loss_of(objective: PCL, query: Tensor, key: Tensor, indices: Tensor) -> Result:
    result: Result = objective([features(query)], [features(key)], BatchInfo(indices))
    return result


def test_before_the_first_clustering_it_is_moco_bit_for_bit() -> None:
    ours = build(warmup_epochs=2, temperature=0.3)
    torch.manual_seed(0)
    moco = MoCo(SPEC, MoCoConfig("v2", dim=4, queue=9, temperature=0.3)).double()
    for step in range(5):
        assert cluster(ours, draw(COUNT, 4, seed=50), epoch=step % 2) == {}
        view, other = draw(3, 4, seed=2 * step), draw(3, 4, seed=2 * step + 1)
        losses = []
        for objective in (ours, moco):
            result = objective([features(view)], [features(other)], BatchInfo(torch.arange(3)))
            parameters = list(objective.parameters())
            with torch.no_grad():
                for parameter, gradient in zip(parameters, torch.autograd.grad(result.loss, parameters), strict=True):
                    parameter.sub_(0.5 * gradient)
            objective.after_step(result.carry, torch.tensor(0.7, dtype=torch.float64))
            losses.append(result.loss.item())
        assert losses[0] == losses[1]
    for mine, theirs in zip(ours.parameters(), moco.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_with_every_image_its_own_cluster_the_second_term_is_instance_discrimination() -> None:
    known = unit(COUNT, 4)
    ours = make(clusters=(COUNT,), temperature=0.3)
    cluster(ours, known)
    instances = InstDisc(SPEC, InstDiscConfig(dim=4, temperature=0.3), count=COUNT).double()
    instances.head = nn.Identity()  # type: ignore[assignment]
    instances.remember(features(known), BatchInfo(torch.arange(COUNT)))
    query, indices = draw(5, 4, seed=1), torch.tensor([7, 0, 11, 3, 4])
    # The queue is empty, so that the first term is 0.
    expected = instances([features(query)], [], BatchInfo(indices)).loss
    assert loss_of(ours, query, draw(5, 4, seed=2), indices).loss.item() == pytest.approx(expected.item(), rel=1e-9)


def test_the_loss_by_hand() -> None:
    """Two of three images share a cluster; each is compared with the centroid of each cluster once."""
    objective = make(clusters=(2, 3), temperature=0.4)
    objective.queue.push(unit(2, 4, seed=8))
    sizes = {0: [[0.3, 0.5], [1, 0, 1]], 1: [[0.2, 0.4, 0.6], [2, 0, 1]]}
    centroids = {}
    for place, clustering in enumerate(objective.clusterings):
        temperatures, assignment = sizes[place]
        centroids[place] = unit(len(temperatures), 4, seed=20 + place)
        clustering.centroids.copy_(centroids[place])
        clustering.temperatures.copy_(torch.tensor(temperatures, dtype=torch.float64))
        clustering.assignment[[4, 9, 2]] = torch.tensor(assignment, dtype=torch.int64)
    query, key = unit(3, 4, seed=1), unit(3, 4, seed=2)
    total, hits = 0.0, 0
    for i in range(3):
        scores = [float(query[i] @ key[i]) / 0.4, *(float(query[i] @ old) / 0.4 for old in unit(2, 4, seed=8))]
        total += (math.log(sum(map(math.exp, scores))) - scores[0]) / 3
        for place, (temperatures, assignment) in sizes.items():
            pairs = zip(centroids[place], temperatures, strict=True)
            scores = [float(query[i] @ centroid) / temperature for centroid, temperature in pairs]
            total += (math.log(sum(map(math.exp, scores))) - scores[int(assignment[i])]) / 3 / 2
            hits += int(np.argmax(scores)) == assignment[i]
    result = loss_of(objective, query, key, torch.tensor([4, 9, 2]))
    assert result.loss.item() == pytest.approx(total, rel=1e-9)
    assert result.metrics["prototype_accuracy"].item() == pytest.approx(hits / 6)


def test_clusters_are_fixed_points_with_the_papers_temperatures() -> None:
    rows = unit(COUNT, 4).numpy()
    objective = make(clusters=(2, 3), iterations=100, temperature=0.3)
    assert cluster(objective, 3 * torch.from_numpy(rows)) == {"used": 1.0}
    for clustering in objective.clusterings:
        assignment, k = clustering.assignment.numpy(), len(clustering.centroids)
        means = np.stack([rows[assignment == own].mean(0) for own in range(k)])
        distances = np.linalg.norm(rows[:, None] - means, axis=2)
        assert (distances.argmin(1) == assignment).all()
        assert np.allclose(clustering.centroids, means / np.linalg.norm(means, axis=1, keepdims=True))
        counts = np.bincount(assignment)
        assert counts.min() > 1
        phi = np.array([distances[assignment == own, own].mean() / np.log(counts[own] + 10) for own in range(k)])
        phi = phi.clip(np.percentile(phi, 10), np.percentile(phi, 90))
        assert np.allclose(clustering.temperatures, 0.3 * phi / phi.mean())


def test_all_images_pass_the_slow_networks_before_every_epoch_after_the_warm_up() -> None:
    objective = build(warmup_epochs=2, head_layers=1)
    assert [objective.wants_all(epoch) for epoch in range(4)] == [None, None, "target", "target"]
    (weight,) = (value for value in objective.key_head.buffers() if value.ndim == 2)
    with torch.no_grad():
        weight.mul_(-1)  # no longer the head's
    assert "stability" not in cluster(objective, draw(COUNT, 4), epoch=2)
    (bias,) = (value for value in objective.key_head.buffers() if value.ndim == 1)
    expected = nn.functional.normalize(draw(COUNT, 4) @ weight.T + bias)
    assert torch.allclose(objective.bank.embeddings, expected)
    assert 0 <= cluster(objective, draw(COUNT, 4, seed=1), epoch=3)["stability"] <= 1
    assert torch.allclose(cluster(objective, draw(COUNT, 4, seed=1), epoch=3)["stability"], torch.tensor(1.0))


def test_what_cannot_be_clustered_or_queued_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^objectives.pcl.clusters must be at most 12, the number of images, got \[4, 13"
    ):
        make(clusters=(4, 13))
    with pytest.raises(ValueError, match=r"^objectives.pcl.clusters must be one or more positive integers, got \[\]$"):
        PCLConfig(clusters=())
    with pytest.raises(ValueError, match=r"^the embeddings do not form objectives.pcl.clusters 3: k must be at most 1"):
        cluster(make(), draw(1, 4).expand(COUNT, 4))
    with pytest.raises(ValueError, match=r"^objectives.pcl.queue must be at least 4, the samples of one batch, got 3$"):
        loss_of(make(queue=3), draw(4, 4), draw(4, 4), torch.arange(4))


@pytest.mark.parametrize(
    ("setting", "owner", "has", "lacking"),
    [
        ("agent.objective", "a replay", {"actions"}, "epochs and indices"),
        ("objective", "a custom training loop", {"labels", "indices", "actions"}, "epochs"),
    ],
)
def test_users_without_epochs_are_sent_to_moco(setting: str, owner: str, has: set[Any], lacking: str) -> None:
    message = f"^{setting} pcl needs {lacking}, which {owner} does not have: take moco$"
    with pytest.raises(ValueError, match=message):
        build_objective("pcl", SPEC, None, DataSpec(COUNT), ObjectiveUser(setting, owner, frozenset(has)))


def test_the_published_settings_are_the_defaults() -> None:
    """The released code, main_pcl.py and the script of version 2."""
    c = PCLConfig()
    assert (c.clusters, c.warmup_epochs, c.iterations, c.restarts) == ((25000, 50000, 100000), 20, 20, 5)
    assert (c.temperature, c.queue, c.head_layers, c.dim, c.momentum) == (0.2, 16384, 2, 128, 0.999)
