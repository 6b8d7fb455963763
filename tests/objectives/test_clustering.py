"""k-means against scikit-learn, a plain numpy version and all partitions; concentration against its equation."""

from __future__ import annotations

import warnings
from itertools import product

import numpy as np
import pytest
import torch

from curl_rl.objectives.clustering import Clusters, concentration, kmeans, normalized_mutual_information
from helpers.random_tensors import draw, unit


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def starts(x: torch.Tensor, k: int, seed: int, *, spherical: bool = False) -> np.ndarray:
    """The rows that k-means starts from."""
    return kmeans(x, k, seeded(seed), spherical=spherical, iterations=0).centroids.numpy()


def by_hand(x: np.ndarray, centroids: np.ndarray, iterations: int, *, spherical: bool) -> tuple[np.ndarray, int]:
    """Lloyd's iterations cluster by cluster; returns the centroids and the number of emptied clusters."""
    centroids, emptied = centroids.copy(), 0
    for _ in range(iterations):
        squares = ((x[:, None] - centroids) ** 2).sum(2)
        nearest = squares.argmin(1)
        empty = [cluster for cluster in range(len(centroids)) if cluster not in nearest]
        emptied += len(empty)
        if not spherical:
            farthest = np.argsort(-squares.min(1), kind="stable")
            for cluster, row in zip(empty, farthest, strict=False):
                nearest[row] = cluster
        for cluster in range(len(centroids)):
            members = x[nearest == cluster]
            if len(members):
                centroids[cluster] = members.mean(0)
                if spherical:
                    centroids[cluster] /= np.linalg.norm(centroids[cluster])
    return centroids, emptied


@pytest.mark.parametrize("iterations", [1, 3, 300])
def test_kmeans_is_scikit_learns(iterations: int) -> None:
    cluster = pytest.importorskip("sklearn.cluster")
    x = draw(120, 3)
    ours = kmeans(x, 9, seeded(), spherical=False, iterations=iterations)
    oracle = cluster.KMeans(9, init=starts(x, 9, 0), n_init=1, max_iter=iterations, tol=0, algorithm="lloyd")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one iteration does not converge
        oracle.fit(x.numpy())
    assert ours.assignment.tolist() == oracle.labels_.tolist()
    assert np.allclose(ours.centroids.numpy(), oracle.cluster_centers_, rtol=1e-9)
    assert ours.distance.square().sum().item() == pytest.approx(oracle.inertia_, rel=1e-9)


def test_an_emptied_cluster_takes_the_farthest_row() -> None:
    """Over many starts, some of which empty a cluster, against numpy; for those also against scikit-learn."""
    cluster = pytest.importorskip("sklearn.cluster")
    times = 0
    for seed in range(300):
        x = draw(14, 2, seed=seed) ** 3
        begin = starts(x, 6, seed)
        expected, emptied = by_hand(x.numpy(), begin, 20, spherical=False)
        ours = kmeans(x, 6, seeded(seed), spherical=False, iterations=20)
        assert np.allclose(ours.centroids.numpy(), expected, rtol=1e-9)
        if emptied:
            times += 1
            oracle = cluster.KMeans(6, init=begin, n_init=1, max_iter=20, tol=0, algorithm="lloyd").fit(x.numpy())
            assert ours.assignment.tolist() == oracle.labels_.tolist()
    assert times >= 3


def test_spherical_kmeans_is_the_one_written_out_and_an_emptied_cluster_keeps_its_centroid() -> None:
    times = 0
    for seed in range(150):
        x = torch.nn.functional.normalize(draw(40, 2, seed=seed) ** 3)  # concentrated near the axes
        begin = starts(x, 7, seed, spherical=True)
        expected, emptied = by_hand(x.numpy(), begin, 20, spherical=True)
        ours = kmeans(5 * x, 7, seeded(seed), spherical=True, iterations=20)
        assert np.allclose(ours.centroids.numpy(), expected, rtol=1e-9)
        assert np.array_equal(ours.assignment.numpy(), (x.numpy() @ expected.T).argmax(1))
        times += bool(emptied)
    assert times >= 3


def test_a_cluster_whose_rows_cancel_keeps_its_direction() -> None:
    x = torch.tensor([[2.0, 0.0], [-2.0, 0.0]])
    ours = kmeans(x, 1, seeded(), spherical=True, iterations=5)
    assert ours.centroids.abs().tolist() == [[1, 0]]
    assert sorted(ours.distance.tolist()) == [0, 2]


def test_the_best_of_many_starts_is_the_best_of_all_partitions() -> None:
    x = draw(8, 2)
    inertias = []
    for rest in product([False, True], repeat=7):
        second = torch.tensor([False, *rest])
        if second.any():
            inertias.append(sum((part - part.mean(0)).square().sum().item() for part in (x[second], x[~second])))
    assert len(inertias) == 2**7 - 1
    ours = kmeans(x, 2, seeded(), spherical=False, iterations=50, restarts=30)
    assert ours.distance.square().sum().item() == pytest.approx(min(inertias), rel=1e-12)


@pytest.mark.parametrize("spherical", [False, True])
def test_the_start_with_the_least_inertia_wins(spherical: bool) -> None:
    x = unit(60, 4)
    generator = seeded()
    single = [kmeans(x, 8, generator, spherical=spherical, iterations=9) for _ in range(5)]
    best = min(single, key=lambda clusters: float((clusters.distance**2).sum()))
    assert len({float((clusters.distance**2).sum()) for clusters in single}) > 1
    ours = kmeans(x, 8, seeded(), spherical=spherical, iterations=9, restarts=5)
    assert all(torch.equal(a, b) for a, b in zip(ours, best, strict=True))


@pytest.mark.parametrize("spherical", [False, True])
def test_at_convergence_centroids_are_the_means_of_their_members_and_the_nearest(spherical: bool) -> None:
    x = unit(200, 5)
    ours = kmeans(x, 12, seeded(), spherical=spherical, iterations=500)
    distances = torch.cdist(x, ours.centroids)
    assert torch.equal(distances.argmin(1), ours.assignment)
    assert torch.allclose(distances.amin(1), ours.distance, rtol=1e-9)
    for cluster, centroid in enumerate(ours.centroids):
        mean = x[ours.assignment == cluster].mean(0)
        assert torch.allclose(centroid, mean / mean.norm() if spherical else mean, rtol=1e-9)


@pytest.mark.parametrize("spherical", [False, True])
def test_chunks_change_nothing(spherical: bool) -> None:
    x = draw(100, 6).float()
    whole, *parts = (
        kmeans(x, 10, seeded(), spherical=spherical, iterations=20, restarts=2, chunk=chunk)
        for chunk in (8192, 100, 33, 1)
    )
    for part in parts:
        assert torch.equal(part.centroids, whole.centroids)
        assert torch.equal(part.assignment, whole.assignment)
        assert torch.allclose(part.distance, whole.distance, rtol=1e-6)


@pytest.mark.parametrize("spherical", [False, True])
def test_as_many_clusters_as_rows_are_the_rows(spherical: bool) -> None:
    x = unit(9, 4)
    ours = kmeans(x, 9, seeded(), spherical=spherical, iterations=5)
    assert sorted(ours.assignment.tolist()) == list(range(9))
    assert torch.allclose(ours.centroids[ours.assignment], x, rtol=1e-12)
    assert ours.distance.max() < 1e-12


def test_rows_that_occur_many_times_are_drawn_once() -> None:
    x = draw(5, 3)[torch.arange(5).repeat_interleave(torch.tensor([80, 5, 1, 1, 13]))]
    for seed in range(20):
        ours = kmeans(x, 5, seeded(seed), spherical=False, iterations=3)
        assert sorted(ours.assignment.bincount().tolist()) == [1, 1, 5, 13, 80]
        assert ours.distance.max() < 1e-12
    with pytest.raises(ValueError, match="^k must be at most 5, the number of distinct rows among 100, got 6$"):
        kmeans(x, 6, seeded(), spherical=False, iterations=3)


def test_the_generator_decides_and_no_global_number_is_drawn() -> None:
    x, before = draw(50, 3), torch.get_rng_state()
    first, same, other = (kmeans(x, 6, seeded(seed), spherical=False, iterations=2) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert not torch.equal(first.centroids, other.centroids)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_row_is_as_likely_a_start() -> None:
    x, generator = torch.arange(6.0)[:, None], seeded()
    drawn = [kmeans(x, 2, generator, spherical=False, iterations=0).centroids[:, 0] for _ in range(1500)]
    counts = torch.cat(drawn).long().bincount(minlength=6)
    assert (counts - 500).abs().max() < 5 * (1500 * (1 / 3) * (2 / 3)) ** 0.5


def test_half_precision_is_widened() -> None:
    x = draw(40, 3).to(torch.bfloat16)
    ours, wide = (kmeans(rows, 4, seeded(), spherical=False, iterations=9) for rows in (x, x.float()))
    assert ours.centroids.dtype == torch.float32
    assert torch.equal(ours.centroids, wide.centroids)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k must be at least 1, got 0"),
        ({"iterations": -1}, "iterations must be at least 0, got -1"),
        ({"restarts": 0}, "restarts must be at least 1, got 0"),
        ({"chunk": 0}, "chunk must be at least 1, got 0"),
    ],
)
def test_impossible_settings_are_refused(arguments: dict[str, int], message: str) -> None:
    settings = {"k": 2, "iterations": 3, **arguments}
    with pytest.raises(ValueError, match=message):
        kmeans(torch.eye(3), generator=seeded(), spherical=False, **settings)


# ------------------------------------------------------------------ concentration


def clusters_of(*distances: list[float]) -> Clusters:
    """A list of distances for each cluster."""
    assignment = [cluster for cluster, part in enumerate(distances) for _ in part]
    return Clusters(
        torch.zeros(len(distances), 2),
        torch.tensor(assignment),
        torch.tensor([distance for part in distances for distance in part], dtype=torch.float64),
    )


def test_concentration_is_the_papers_equation() -> None:
    parts = [[1.0, 3.0], [0.5, 0.5, 0.2], [0.1, 0.3, 0.1, 0.1], [2.0, 1.0, 4.0], [0.7, 0.9]]
    phi = np.array([np.sum(part) / (len(part) * np.log(len(part) + 10)) for part in parts])
    phi = phi.clip(np.percentile(phi, 10), np.percentile(phi, 90))
    found = concentration(clusters_of(*parts), 0.2)
    assert found.tolist() == pytest.approx((0.2 * phi / phi.mean()).tolist(), rel=1e-12)
    assert found.mean().item() == pytest.approx(0.2, rel=1e-12)


def test_clusters_of_one_row_no_row_or_equal_rows_get_the_largest() -> None:
    found = concentration(clusters_of([0.5, 0.7], [0.0], [], [0.0, 0.0], [4.0], [0.2, 0.1]), 0.1).tolist()
    largest, _, _, _, _, least = found
    assert found == [largest] * 5 + [least]
    plain = [0.6 / np.log(12), 0.15 / np.log(12)]
    clipped = np.percentile([plain[0]] * 5 + [plain[1]], 10)
    assert least / largest == pytest.approx(clipped / plain[0], rel=1e-12)
    assert np.mean(found) == pytest.approx(0.1, rel=1e-12)


def test_without_any_spread_every_concentration_is_the_temperature() -> None:
    x = unit(7, 3)
    ours = kmeans(x, 7, seeded(), spherical=False, iterations=5)
    assert concentration(ours, 0.3).tolist() == pytest.approx([0.3] * 7, rel=1e-12)


def test_the_agreement_of_clusterings_is_scikit_learns() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    for seed in range(20):
        generator = seeded(seed)
        first = torch.randint(1 + seed % 7, (40,), generator=generator)
        second = torch.where(
            torch.rand(40, generator=generator) < 0.5, first, torch.randint(9, (40,), generator=generator)
        )
        expected = metrics.normalized_mutual_info_score(first.numpy(), second.numpy())
        assert normalized_mutual_information(first, second).item() == pytest.approx(expected, abs=1e-6)


def test_the_agreement_is_1_in_any_order_of_the_clusters_and_0_if_one_tells_nothing_of_the_other() -> None:
    first = torch.tensor([0, 0, 1, 1, 2, 2])
    assert normalized_mutual_information(first, torch.tensor([5, 1, 3])[first]).item() == pytest.approx(1)
    assert normalized_mutual_information(first, torch.tensor([0, 1, 0, 1, 0, 1])).item() == pytest.approx(0, abs=1e-6)
    assert normalized_mutual_information(torch.zeros(4, dtype=torch.int64), torch.zeros(4, dtype=torch.int64)) == 1
