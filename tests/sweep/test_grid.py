"""The jobs of a grid."""

from __future__ import annotations

from curl_rl.sweep.grid import Grid
from curl_rl.sweep.job import Job
from curl_rl.sweep.source import FixedJobs


def test_every_combination_is_a_job_and_seeds_come_round_by_round() -> None:
    grid = Grid(("a", "b"), ("cpu",), (1, 2), {"y": ("1", "2"), "x": ("0",)})
    expected = [
        Job(env, "cpu", (("x", "0"), ("y", y)), seed) for seed in (1, 2) for env in ("a", "b") for y in ("1", "2")
    ]
    assert grid.jobs() == expected
    assert grid.jobs({"z": "9"})[0].settings == (("x", "0"), ("y", "1"), ("z", "9"))


def test_a_value_named_twice_makes_one_job() -> None:
    assert len(Grid(("a",), ("cpu",), (1,), {"y": ("1", "1")}).jobs()) == 1
    job = Job("a", "cpu", (), 1)
    assert FixedJobs([job, job]).jobs == [job]
