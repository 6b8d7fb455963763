"""Milliseconds of k-means and of SwAV's balanced codes."""

from __future__ import annotations

import functools
import importlib.util
import warnings
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from benchmarks.timing import Row, alone, compared, side_by_side
from curl_rl.losses import sinkhorn
from curl_rl.objectives.clustering import Clusters, kmeans

_TARGET = "target: 250 ms on one thread"
_MORE = 5  # iterations that the longer of two runs has more


def measure(
    device: torch.device,
    rounds: int,
    *,
    rows: int = 50_000,
    dim: int = 128,
    centroids: int = 1000,
    batch: int = 256,
    prototypes: int = 3000,
    queue: int = 3840,
) -> list[Row]:
    """Rows for an iteration of k-means, against scikit-learn's on a CPU, and for the codes of a batch.

    An iteration is the difference between runs that start alike and differ by five iterations, so that drawing the
    start does not count. None of them ends early at the default sizes.

    Args:
        device: of the embeddings.
        rounds: measurements of each case.
        rows: embeddings to cluster.
        dim: size of an embedding.
        centroids: number of clusters.
        batch: embeddings whose codes are balanced.
        prototypes: number of prototypes, the paper's.
        queue: past embeddings that are balanced along with the batch, the paper's.
    """
    torch.manual_seed(0)
    x = torch.randn(rows, dim).to(device)
    cases: dict[str, Callable[[], object]] = {}
    for spherical in (True, False):
        for iterations in (1, 1 + _MORE):
            case = functools.partial(ours, x, centroids, iterations, spherical=spherical)
            cases[f"{spherical} {iterations}"] = case
    first = ours(x, centroids, 0, spherical=False).centroids
    cases["products"] = lambda: [part @ first.T for part in x.split(8192)]
    scikit_learn = device.type == "cpu" and importlib.util.find_spec("sklearn") is not None
    if scikit_learn:
        for iterations in (1, 1 + _MORE):
            cases[f"theirs {iterations}"] = functools.partial(scikit_learns, x, first, iterations)
    else:
        print("k-means is not compared with scikit-learn's, which needs a CPU and to be installed")
    seconds = side_by_side(cases, rounds=rounds, warm_up=1, device=device, description="k-means")

    def iteration(case: str) -> list[float]:
        pairs = zip(seconds[f"{case} 1"], seconds[f"{case} {1 + _MORE}"], strict=True)
        return [(longer - shorter) / _MORE for shorter, longer in pairs]

    name = f"k-means, {rows:,} × {dim}, {centroids:,} centroids, per iteration"
    note = f"{_TARGET}; products with the centroids alone {1e3 * median(seconds['products']):.0f} ms"
    result = [alone(f"{name}, spherical", iteration("True"), note)]
    if scikit_learn:
        result.append(compared(f"{name}, scikit-learn as plain", iteration("theirs"), iteration("False"), note))
    else:
        result.append(alone(name, iteration("False"), note))

    scores = {size: torch.rand(size, prototypes).to(device) for size in (batch, batch + queue)}
    for size, own in scores.items():
        name = f"Sinkhorn, {size} × {prototypes:,}, 3 iterations"
        codes = {key: functools.partial(balance, own) for key, balance in balances().items()}
        seconds = side_by_side(codes, rounds=rounds, warm_up=1, device=device, description=name)
        if "lightly" in seconds:
            result.append(compared(f"{name}, lightly as plain", seconds["lightly"], seconds["ours"]))
        else:
            result.append(alone(name, seconds["ours"]))
    return result


def ours(x: Tensor, centroids: int, iterations: int, *, spherical: bool) -> Clusters:
    """Our k-means, from the same start in every call."""
    return kmeans(x, centroids, torch.Generator().manual_seed(0), spherical=spherical, iterations=iterations)


def scikit_learns(x: Tensor, start: Tensor, iterations: int) -> Tensor:
    """Centroids of scikit-learn's k-means from ``(K, D)`` starting ones, with as many threads as PyTorch has."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    clustering = KMeans(len(start), init=start.numpy(), n_init=1, max_iter=iterations, tol=0, algorithm="lloyd")
    with threadpool_limits(torch.get_num_threads()), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return torch.from_numpy(clustering.fit(x.numpy()).cluster_centers_)


def balances() -> dict[str, Callable[[Tensor], Tensor]]:
    """Codes of ``(B, K)`` scores: ours, and lightly's if it is installed."""
    found: dict[str, Callable[[Tensor], Tensor]] = {"ours": lambda scores: sinkhorn(scores, 0.05, 3)}
    if importlib.util.find_spec("lightly") is not None:
        from lightly.loss.swav_loss import sinkhorn as lightlys

        found["lightly"] = lambda scores: lightlys(scores, iterations=3, epsilon=0.05)
    return found
