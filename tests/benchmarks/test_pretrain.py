"""The measurement is fair to the plain pipeline however many workers it has; what it measures is not tested."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from benchmarks import pretrain
from examples.simclr_on_images import SimCLR


@pytest.mark.parametrize("cores", [1, 2, 16, 64])
def test_every_worker_makes_a_dozen_batches_and_times_are_a_steps(monkeypatch: pytest.MonkeyPatch, cores: int) -> None:
    passes: list[tuple[int, int]] = []
    monkeypatch.setattr(SimCLR, "pass_over", lambda _, loader: passes.append((len(loader), loader.num_workers)))

    def timed(cases: dict[str, Callable[[], object]], **_: object) -> dict[str, list[float]]:
        cases["plain"]()
        return {name: [0.8] for name in cases}

    monkeypatch.setattr(pretrain, "side_by_side", timed)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    rows = {row.name: row for row in pretrain.measure(torch.device("cpu"), 2, rounds=1)}
    step, augmentation = rows["SimCLR step, batch 2, float32"], rows["augmentation, batch 2"]
    ((steps, workers),) = passes
    assert workers == max(1, cores - 1)
    assert steps >= 12 * workers
    assert (step.plain_ms, step.ours_ms) == (pytest.approx(800 / steps), pytest.approx(100))
    # Without workers nothing waits for a first batch.
    assert (augmentation.plain_ms, augmentation.ours_ms) == (pytest.approx(100), pytest.approx(100))
