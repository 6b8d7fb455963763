"""Curves read from runs written by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from curl_rl.report.curves import read_curves
from curl_rl.rl.config import RunConfig, load_preset, read_config, save_config
from curl_rl.vision.config import load_preset as load_vision_preset


@lru_cache
def preset(changes: str) -> RunConfig:
    """Reading one takes a third of a second."""
    return load_preset("cpu", "tiny-reach", json.loads(changes))


def write_run(directory: Path, rows: list[dict[str, Any]], **changes: Any) -> None:
    directory.mkdir(parents=True)
    own = {name: changes.pop(name) for name in ("seed", "frames") if name in changes}
    config = replace(preset(json.dumps(changes)), **own, run=directory)
    save_config(config, directory / "config.yaml")
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


def test_of_two_runs_of_one_seed_the_longer_one_counts_and_the_other_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "a", [evaluation(0, 1.0)], seed=3)
    write_run(tmp_path / "b", [evaluation(0, 2.0), evaluation(10, 5.0)], seed=3)
    write_run(tmp_path / "c", [evaluation(0, 7.0)], seed=4)
    (curve,) = read_curves([tmp_path])
    assert curve.seeds == {3: {0: 2.0, 10: 5.0}, 4: {0: 7.0}}
    line = f"warning: {tmp_path}/a is a second run of tiny-reach, cpu, seed 3, and is left out\n"
    assert capsys.readouterr().err == line


def test_a_run_that_is_under_way_is_marked_and_ends_the_common_frames(tmp_path: Path) -> None:
    write_run(tmp_path / "done", [evaluation(0, 1.0), evaluation(10, 2.0), evaluation(20, 3.0)], seed=1, frames=20)
    write_run(tmp_path / "running", [evaluation(0, 1.0), evaluation(10, 4.0)], seed=2, frames=20)
    with open(tmp_path / "running" / "metrics.jsonl", "a") as file:
        file.write('{"frames": 20, "evaluation/return_me')  # as a killed process leaves it
    (curve,) = read_curves([tmp_path])
    assert curve.unfinished == {2}
    assert curve.common_frames() == [0, 10]
    assert curve.matrix([0, 10]).tolist() == [[1.0, 2.0], [1.0, 4.0]]


def test_seeds_with_different_budgets_are_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "a", [evaluation(0, 1.0), evaluation(2000, 1.0)], seed=1, frames=2000)
    write_run(tmp_path / "b", [evaluation(0, 1.0)], seed=2, frames=1000)
    read_curves([tmp_path])
    line = "warning: tiny-reach, cpu: budgets of 1,000 to 2,000 frames; the mean ends where the first seed does\n"
    assert capsys.readouterr().err == line


@pytest.mark.parametrize("rows", [[], [{"frames": 3, "critic/loss": 1.0}]], ids=["empty", "not yet evaluated"])
def test_a_run_without_evaluation_is_left_out_with_a_warning(
    rows: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "a", [evaluation(0, 1.0)])
    write_run(tmp_path / "b", rows, seed=2)
    assert len(read_curves([tmp_path])) == 1
    assert capsys.readouterr().err == f"warning: {tmp_path}/b has no evaluation yet, and is left out\n"


def test_a_return_that_is_not_finite_is_no_evaluation(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [evaluation(0, 1.0), {"frames": 10, "evaluation/return_mean": None}])
    (curve,) = read_curves([tmp_path])
    assert curve.seeds == {1: {0: 1.0}}


def test_the_time_of_an_evaluation_counts_from_the_first_row(tmp_path: Path) -> None:
    rows = [{"frames": 0, "wall_time": 100.0}, {**evaluation(10, 1.0), "wall_time": 160.0}]
    write_run(tmp_path / "a", rows)
    (curve,) = read_curves([tmp_path])
    assert curve.seconds == {1: {10: 60.0}}


def test_a_run_named_twice_counts_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "folder" / "a", [evaluation(0, 1.0)])
    assert len(read_curves([tmp_path, tmp_path / "folder", tmp_path / "folder" / "a"])[0].seeds) == 1
    assert capsys.readouterr().err == ""


def test_seeds_are_read_without_reading_their_settings_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    real = read_config
    monkeypatch.setattr("curl_rl.rl.config.read_config", lambda path: read.append(path) or real(path))
    changes = {"agent": {"hidden": 77}}  # in no other test: labels are remembered
    for seed in (1, 2, 3):
        write_run(tmp_path / str(seed), [evaluation(0, 1.0)], seed=seed, **changes)
    (curve,) = read_curves([tmp_path])
    assert (curve.label, len(curve.seeds), len(read)) == ("cpu, agent.hidden 77", 3, 1)


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


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"rusn does not exist: name a run, a folder of runs or a CSV file of runs$"):
        read_curves([tmp_path / "rusn"])


@pytest.mark.parametrize("name", ["evaluation/return_mean", "wall_time"])
def test_a_metric_that_is_no_number_is_one_line(name: str, tmp_path: Path) -> None:
    write_run(tmp_path / "run", [{"frames": 0, name: "high"}, evaluation(10, 1.0)])
    with pytest.raises(
        ValueError, match=rf"^{tmp_path}/run/metrics.jsonl: {name} must be a number or null, got 'high'$"
    ):
        read_curves([tmp_path])
