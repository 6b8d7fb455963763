"""Jobs by way of submitit, whose local executor stands in for Slurm."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from curl_rl.runs.errors import UserError
from curl_rl.runs.signals import Stopped
from curl_rl.sweep.slurm import SubmittedJobs
from curl_rl.sweep.worker import Task
from helpers.stand_in_jobs import FAILS, driver, jobs, notes

submitit = pytest.importorskip("submitit", reason="submitit is not installed")


def local(folder: Path, **options: Any) -> SubmittedJobs:
    usual: dict[str, Any] = {"jobs": 2, "cpus": 1, "gpus": None, "parameters": {}}
    return SubmittedJobs("local", folder / "submitit", **(usual | options))


def test_jobs_run_once_and_a_killed_and_a_failing_one_are_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The result of a killed job never comes; on a network's disk it might come late.
    monkeypatch.setattr(submitit.LocalJob, "_results_timeout_s", 0)
    # The first job's command kills its worker with itself, once, as a machine that goes down does.
    killed = "[ $SEED = 1 ] && [ ! -e tried ] && { touch tried; kill -9 $PPID; kill -9 $$; }; "
    failing = f"[ $SEED = 2 ] && {{ {FAILS}; }}; :"
    assert driver(tmp_path, jobs(3), killed + failing, local(tmp_path)).run() == 1
    assert Counter(notes(tmp_path)) == Counter({"start 1": 2, "end 1": 1, "start 2": 2, "start 3": 1, "end 3": 1})
    assert driver(tmp_path, jobs(3), ":", local(tmp_path)).run() == 0
    assert Counter(notes(tmp_path))["start 3"] == 1


def test_what_submitit_gets(tmp_path: Path) -> None:
    executor = SubmittedJobs("local", tmp_path, jobs=None, cpus=3, gpus=1.0, parameters={})._executor
    assert executor._executor.parameters["gpus_per_node"] == 1
    assert executor._executor.parameters["timeout_min"] > 60 * 24 * 365


@pytest.mark.parametrize(
    ("cluster", "options", "line"),
    [
        ("local", {"gpus": 0.5}, "gpus_per_job must be a whole number with --on slurm, got 0.5"),
        ("slurm", {}, "--on slurm: "),
    ],
)
def test_what_slurm_cannot_do_is_refused(
    cluster: Any, options: dict[str, Any], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # without srun
    with pytest.raises(UserError) as refused:
        SubmittedJobs(cluster, tmp_path, **({"jobs": None, "cpus": 1, "gpus": None, "parameters": {}} | options))
    assert str(refused.value).startswith(line)


def test_what_slurm_gets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("srun", ":"), ("sbatch", f"cp $1 {tmp_path}/batch; echo Submitted batch job 12")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    engine = SubmittedJobs("slurm", tmp_path / "submitit", None, 3, 1, {"partition": "gpu", "time": "720"})
    engine.start(Task(str(tmp_path), "a/b/seed1", "x", ("true",), str(tmp_path), {}))
    options = {line.removeprefix("#SBATCH --") for line in (tmp_path / "batch").read_text().splitlines()}
    assert {"partition=gpu", "time=720", "cpus-per-task=3", "gpus-per-node=1", "job-name=sweep"} <= options
    assert engine.outlives
    with pytest.raises(UserError, match=r"^--on slurm: .*partitoin"):
        SubmittedJobs("slurm", tmp_path / "submitit", None, 3, 1, {"partitoin": "gpu"})


def test_interrupted_sweep_leaves_the_queue_alone(tmp_path: Path) -> None:
    engine = local(tmp_path)
    assert not engine.outlives
    engine.outlives = True  # as with Slurm
    script = f"kill -{int(signal.SIGTERM)} {os.getpid()}; while [ ! -e go ]; do sleep 0.05; done"
    with pytest.raises(Stopped):
        driver(tmp_path, jobs(1), script, engine).run()
    (tmp_path / "go").touch()
    assert driver(tmp_path, jobs(1), script, local(tmp_path)).run() == 0
    assert notes(tmp_path) == ["start 1", "end 1"]
