"""Sweeps from a file, from flags and from both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from curl_rl.runs.errors import UserError
from curl_rl.sweep.config import SweepConfig, read_sweep
from curl_rl.sweep.search import Between, OneOf

FILE = """
env: [cartpole-swingup, walker-walk]
preset: cpu
seeds: [1, 2]
set:
  agent.objective: [curl, none]
  agent.encoder.strides: [[2], [2, 1]]
  frames: 1e5
search:
  agent.encoder_tau: {low: 1e-3, high: 0.1, log: true}
  agent.hidden: {low: 64, high: 1024}
  agent.update_rule: [paper, joint]
trials: 7
jobs: 2
"""


def test_file_and_flags_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(FILE)
    expected = SweepConfig(
        env=("cartpole-swingup", "walker-walk"),
        preset=("cpu",),
        seeds=(1, 2),
        set={"agent.objective": ("curl", "none"), "agent.encoder.strides": ("[2]", "[2,1]"), "frames": ("100000",)},
        search={
            "agent.encoder_tau": Between(0.001, 0.1, log=True),
            "agent.hidden": Between(64, 1024),
            "agent.update_rule": OneOf(("paper", "joint")),
        },
        trials=7,
        folder=Path("sweeps/mine"),
        jobs=2,
    )
    assert read_sweep(tmp_path / "mine.yaml", {}) == expected
    flags: dict[str, Any] = {
        "env": ["cartpole-swingup", "walker-walk"],
        "preset": ["cpu"],
        "seeds": ["1", "2"],
        "set": ["agent.objective=curl,none", "agent.encoder.strides=[2],[2,1]", "frames=100_000"],
        "search": ["agent.encoder_tau=1e-3..0.1:log", "agent.hidden=64..1024", "agent.update_rule=paper,joint"],
        "trials": "7",
        "folder": "sweeps/mine",
        "jobs": "2",
    }
    assert read_sweep(None, flags) == expected


def test_flags_override_the_file_entry_by_entry(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(FILE)
    config = read_sweep(tmp_path / "mine.yaml", {"seeds": ["5"], "set": ["frames=20"], "jobs": None})
    assert (config.seeds, config.set, config.jobs) == ((5,), {"frames": ("20",)}, 2)


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ({}, "env must name at least one task, such as "),
        ({"seeds": ["x"]}, "seeds must be a whole number of at least 0, got x"),
        ({"seeds": ["-1"]}, "seeds must be a whole number of at least 0, got -1"),
        ({"jobs": "0"}, "jobs must be a whole number of at least 1, got 0"),
        ({"set": ["frames"]}, "set must be NAME=VALUE, got frames"),
        ({"set": ["frames="]}, "set must be NAME=VALUE, got frames"),
        ({"set": ["frames=,"]}, "set: frames must have at least one value"),
        ({"search": ["agent.hidden=5"]}, "search: agent.hidden must be LOW..HIGH, "),
        ({"search": ["agent.hidden=5..2"]}, "search: the bounds of agent.hidden must rise, got 5 and 2"),
        ({"search": ["agent.hidden=0..2:log"]}, "search: the bounds of agent.hidden must rise, and above 0 with log"),
        ({"search": ["agent.hidden=0..x"]}, "search: agent.hidden must be LOW..HIGH, "),
        ({"gpus_per_job": "1.5"}, "gpus_per_job must be a whole number of GPUs or a fraction of one, such as 0.25"),
        ({"on": "slrm"}, "on must be local, ray, slurm, local-submitit, got slrm; did you mean slurm?"),
        ({"env": ["a"], "set": ["x=1"], "search": ["x=1,2"]}, "x must be in set or in search, got both"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line(flags: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as refused:
        read_sweep(None, flags)
    assert str(refused.value).startswith(line)


def test_unknown_entry_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("envs: [a]\n")
    with pytest.raises(UserError, match=r"mine.yaml: unknown entry envs; did you mean env\?$"):
        read_sweep(tmp_path / "mine.yaml", {})
