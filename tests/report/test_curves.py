"""Curves read from runs written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from curl_rl.report.curves import read_curves
from curl_rl.rl.config import load_preset, save_config
from curl_rl.vision.config import load_preset as load_vision_preset


def write_run(directory: Path, rows: list[dict[str, Any]], **changes: Any) -> None:
    directory.mkdir(parents=True)
    save_config(load_preset("cpu", "tiny-reach", changes), directory / "config.yaml")
    (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def evaluation(frames: int, mean: float) -> dict[str, Any]:
    return {"frames": frames, "evaluation/return_mean": mean}


def test_seeds_are_gathered_and_other_settings_kept_apart(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [evaluation(0, 1.0), evaluation(10, 3.0), evaluation(20, 9.0)], seed=1)
    write_run(tmp_path / "deep" / "b", [evaluation(0, 2.0), evaluation(10, 5.0)], seed=2, log={"every": 7}, frames=99)
    write_run(tmp_path / "c", [evaluation(0, 7.0)], seed=1, agent={"objective": "none"})
    write_run(tmp_path / "d.before-20260101", [evaluation(0, 7.0)], seed=1)
    write_run(tmp_path / "not yet evaluated", [{"frames": 3, "critic/loss": 1.0}])
    plain, without = read_curves([tmp_path, tmp_path / "deep"])
    assert (plain.env, plain.label) == ("tiny-reach", "cpu")
    assert without.label == "cpu, agent.objective none"
    assert plain.frames() == [0, 10, 20]
    assert plain.returns_at(10) == [3.0, 5.0]
    assert plain.returns_at(20) == [9.0], "of the seeds that have reached it"


def test_a_pretraining_run_is_skipped(tmp_path: Path) -> None:
    write_run(tmp_path / "agent", [evaluation(0, 1.0)])
    (tmp_path / "images").mkdir()
    config = load_vision_preset("digits", "simclr")
    config.schema.save(config, tmp_path / "images" / "config.yaml")
    (tmp_path / "images" / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n')
    assert len(read_curves([tmp_path])) == 1


def test_two_runs_of_one_seed_are_refused(tmp_path: Path) -> None:
    for name in "ab":
        write_run(tmp_path / name, [evaluation(0, 1.0)], seed=3)
    with pytest.raises(ValueError, match=r"b is a second run of tiny-reach, cpu, seed 3"):
        read_curves([tmp_path])


def test_the_random_policys_return_is_that_of_episodes_within_the_random_steps(tmp_path: Path) -> None:
    # 40 random agent steps of 2 environment steps: up to frame 80.
    episodes = [{"frames": at, "episode/return": value} for at, value in ((50, 1.0), (80, 2.0), (81, 50.0))]
    changes = {"environment": {"action_repeat": 2}, "training": {"random_steps": 40}}
    write_run(tmp_path / "run", [evaluation(0, 0.0), *episodes], **changes)
    (curve,) = read_curves([tmp_path])
    assert curve.random_returns == [1.0, 2.0]


def test_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no run with an evaluation below"):
        read_curves([tmp_path])
