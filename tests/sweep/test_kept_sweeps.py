"""The sweeps in results/sweeps are ones that the command accepts, with as many jobs as their comments promise."""

from __future__ import annotations

from pathlib import Path

import pytest

from curl_rl.sweep.config import read_sweep
from curl_rl.sweep.grid import Grid
from curl_rl.sweep.plan import Plan

SWEEPS = Path(__file__).resolve().parents[2] / "results" / "sweeps"
JOBS = {
    "six-tasks": 6 * 3 * 2,
    "objectives": 3 * 3 * 4,
    "objectives-with-actions": 3 * 3,
    "objectives-together": 3 * 3,
}


def test_all_are_listed() -> None:
    assert {file.stem for file in SWEEPS.iterdir()} == {*JOBS}


@pytest.mark.parametrize("name", JOBS)
def test_jobs_and_budget(name: str) -> None:
    sweep = read_sweep(SWEEPS / f"{name}.yaml", {})
    jobs = Grid(sweep.env, sweep.preset, sweep.seeds, sweep.set).jobs()
    assert len({job.name for job in jobs}) == len(jobs) == JOBS[name]
    assert Plan().budget(jobs[-1]) == 100_000


def test_both_objectives_of_a_sum_have_their_weights() -> None:
    sweep = read_sweep(SWEEPS / "objectives-together.yaml", {})
    (job, *_) = Grid(sweep.env, sweep.preset, sweep.seeds, sweep.set).jobs()
    agent = Plan().config(job).agent
    assert agent.objective == "curl+cpc"
    assert agent.objective_weight == (1.0, 0.1)
