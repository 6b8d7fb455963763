"""The command: what it lists, refuses, trains and collects."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

import envs
from curl_rl.commands import sweep
from curl_rl.commands.sweep import main
from curl_rl.report.curves import read_curves, read_runs
from curl_rl.report.long_csv import notes_of, read_csv
from curl_rl.rl.config import load_preset, parse_command_line, save_config
from curl_rl.runs.logger import read_metrics
from curl_rl.sweep import plan
from curl_rl.sweep.collect import collect
from curl_rl.sweep.files import JobFiles
from curl_rl.sweep.grid import Grid

TINY = (
    *("frames=20", "device=cpu", "environment.size=12", "training.random_steps=8", "replay.capacity=100"),
    *("agent.crop=10", "agent.batch_size=4", "agent.hidden=8", "agent.precision=float32"),
    *("agent.encoder.filters=2", "agent.encoder.strides=[2]", "agent.encoder.latent=4"),
    *("evaluation.episodes=1", "evaluation.video=false"),
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["sweep.py"])
    monkeypatch.setenv("PYTHONPATH", str(Path(sweep.__file__).resolve().parents[2]))


def call(*arguments: str) -> int:
    return main([*arguments, "--folder", "out"], envs.make)


def test_dry_run_prints_a_command_for_each_combination(capsys: pytest.CaptureFixture[str]) -> None:
    line = "--env tiny-reach --preset cpu --seeds 1 2 --set agent.objective=curl,none frames=2e3 --dry_run"
    assert call(*line.split()) == 0
    found = []
    for command in capsys.readouterr().out.splitlines():
        script, *flags = shlex.split(command)[1:]
        assert Path(script).name == "train_agent.py"
        found.append(flags)
    assert len({flags[-1] for flags in found}) == len(found) == 4
    configs = [parse_command_line(flags, program="", description="")[0] for flags in found[1:3]]
    expected = [(1, "none", 2000), (2, "curl", 2000)]
    assert [(config.seed, config.agent.objective, config.frames) for config in configs] == expected
    assert not Path("out").exists()


def test_status_runs_and_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--env", "tiny-reach", "--preset", "cpu", "--seeds", "1", "2", "--status") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 jobs: 2 waiting, time left: not known yet"
    assert call("--env", "tiny-reach", "--preset", "cpu", "--search", "agent.hidden=8..16", "--status") == 0
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ("--set seed=1", "set must not name seed: --seeds chooses it"),
        ("--set agent.objektive=curl", "set: unknown setting agent.objektive; did you mean agent.objective?; "),
        ("--set agent.objective=crul", "agent.objective must be "),
        ("--set frames=0", "frames must be at least 1 "),
        ("--set agent.batch_size=9999999", "replay.capacity "),
        ("--search agent.hidden=-1..64", "agent.hidden must be "),
        (
            "--search agent.objective=curl,none --set evaluation.every=0",
            "evaluation.every must be at least 1 in a search",
        ),
        ("--jobs 1000", "jobs must be from 1 to "),
        ("--config none.yaml", "cannot read none.yaml: "),
    ],
)
def test_a_mistake_is_one_line_before_anything_starts(
    flags: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("--env", "tiny-reach", "--preset", "cpu", *flags.split()) == 2
    (found,) = capsys.readouterr().err.splitlines()
    assert found.startswith(f"sweep.py: error: {line}")
    assert not Path("out", "runs").exists()


def test_unknown_task_is_refused_before_anything_starts(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--env", "tiny-reach", "tiny-reech", "--preset", "cpu") == 2
    (found,) = capsys.readouterr().err.splitlines()
    assert found.startswith("sweep.py: error: ")
    assert "tiny-reech" in found
    assert not Path("out").exists()


def test_sweep_trains_collects_and_does_not_train_again(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--env", "tiny-reach", "--preset", "cpu", "--jobs", "1", "--set", *TINY)
    assert call(*arguments) == 0
    (run,) = read_csv(Path("out/sweep.csv"))
    (directory,) = (path.parent for path in Path("out/runs").rglob("config.yaml"))
    assert run.rows == read_metrics(directory / "metrics.jsonl")
    assert (run.env, run.seed, run.rows[-1]["frames"]) == ("tiny-reach", 1, 20)
    assert run.label.startswith("cpu, agent.batch_size 4, agent.crop 10, ")
    assert notes_of(Path("out/sweep.csv"))["command"] == [
        f"python scripts/sweep.py {shlex.join(arguments)} --folder out"
    ]
    capsys.readouterr()
    assert call(*arguments) == 0
    assert "1 job: 1 done" in capsys.readouterr().out
    (log,) = Path("out/jobs").rglob("*.log")
    assert log.read_text().count("$ ") == 1


def test_failed_jobs_give_exit_code_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(plan, "training_command", lambda: ["sh", "-c", "echo no such task; exit 2"])
    assert call("--env", "tiny-reach", "--preset", "cpu", "--set", "device=cpu") == 1
    *_, reason, last = (line for line in capsys.readouterr().err.splitlines() if "fail" in line)
    log = Path("out/jobs/tiny-reach/cpu,device=cpu/seed1.log").absolute()
    assert reason == f"tiny-reach/cpu,device=cpu/seed1 failed: no such task; its log: {log}"
    assert last == "sweep.py: 1 of 1 jobs failed; the same command tries them again"


def test_runs_that_tables_cannot_tell_apart_are_collected_under_their_own_names(tmp_path: Path) -> None:
    # Neither budget nor a value that is the preset's own is in a run's usual label.
    grid = Grid(("tiny-reach",), ("cpu",), (1,), {"frames": ("500", "900"), "agent.objective": ("curl",)})
    for job in grid.jobs():
        files = JobFiles(tmp_path, job.name)
        files.run.mkdir(parents=True)
        changes: dict[str, Any] = {"frames": int(dict(job.settings)["frames"])}
        save_config(load_preset("cpu", "tiny-reach", changes), files.run / "config.yaml")
        (files.run / "metrics.jsonl").write_text('{"frames": 10, "evaluation/return_mean": 1.0}\n')
        (files.run / "run.lock").touch()
    path = collect(tmp_path, grid.jobs(), "sweep")
    assert path == tmp_path / "sweep.csv"
    labels = [run.label for run in read_csv(path)]
    assert labels == ["cpu, agent.objective curl, frames 500", "cpu, agent.objective curl, frames 900"]
    assert sorted(curve.label for curve in read_curves([path])) == labels
    # A folder of runs with their sweep.csv holds each run once; the file alone, all of them.
    assert [run.source.name for run in read_runs([tmp_path])] == ["seed1", "seed1"]
    assert len(read_runs([path])) == 2
