"""Where a loss is compared with a library's, both compute the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks import clustering, libraries
from benchmarks.libraries import Inputs
from benchmarks.timing import Row

CPU = torch.device("cpu")
INPUTS = Inputs.draw(CPU, batch=12, dim=6, queue=36, prototypes=10)


@pytest.mark.parametrize("library", ["pytorch_metric_learning", "lightly"])
def test_losses_and_gradients_are_the_librarys_in_every_step(library: str) -> None:
    pytest.importorskip(library)
    compare: Any = getattr(libraries, f"with_{library}")
    comparisons = compare(INPUTS, library)
    assert comparisons
    for comparison in comparisons:
        work = comparison.work(INPUTS)
        for _ in range(5):  # a bank is overwritten from its start in the fourth
            (loss, gradient), (expected, by_library) = work["ours"](), work["plain"]()
            assert loss.item() == pytest.approx(expected.item(), rel=1e-5), comparison.name
            assert torch.allclose(gradient, by_library, rtol=1e-4, atol=1e-6), comparison.name
            assert gradient.norm() > 1e-3, comparison.name


def test_each_comparison_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pytorch_metric_learning")
    monkeypatch.setattr(libraries, "QUEUE", 36)
    monkeypatch.setattr(libraries, "PROTOTYPES", 10)
    rows = {row.name: row for row in libraries.measure(CPU, 12, rounds=1, dim=6)}
    row = rows["NT-Xent, batch 12, PyTorch Metric Learning as plain"]
    assert row.plain_ms is not None
    assert row.ours_ms is not None
    assert row.ratio == pytest.approx(row.plain_ms / row.ours_ms)
    assert len(rows) == len(libraries.comparisons(INPUTS))


def test_k_means_ends_with_scikit_learns_centroids() -> None:
    pytest.importorskip("sklearn")
    x = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    start = clustering.ours(x, 7, 0, spherical=False).centroids
    for iterations in (1, 4):
        theirs = clustering.scikit_learns(x, start, iterations)
        assert torch.allclose(clustering.ours(x, 7, iterations, spherical=False).centroids, theirs, atol=1e-5)
    assert not torch.allclose(start, theirs, atol=1e-2)


def test_codes_are_lightlys() -> None:
    pytest.importorskip("lightly")
    scores = torch.rand(12, 10)
    codes = {name: balance(scores) for name, balance in clustering.balances().items()}
    assert torch.allclose(codes["ours"], codes["lightly"], rtol=1e-4)


def test_clustering_has_rows() -> None:
    rows = clustering.measure(CPU, 1, rows=60, dim=4, centroids=5, batch=8, prototypes=6, queue=8)
    names = [row.name for row in rows]
    assert names[0] == "k-means, 60 × 4, 5 centroids, per iteration, spherical"
    assert [name.split(",")[0] for name in names] == ["k-means", "k-means", "Sinkhorn", "Sinkhorn"]
    assert all(isinstance(row, Row) and row.ours_ms is not None for row in rows)
    assert "target: 250 ms" in rows[0].note
