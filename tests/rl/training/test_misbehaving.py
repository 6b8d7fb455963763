"""Environments that misbehave in mid-run, and hands that reach into a run's directory.

The oracle of every resumption is a run that was left alone.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from curl_rl.rl.config import CheckpointConfig, EvaluationConfig, TrainingConfig
from curl_rl.rl.training import TrainingFault, train
from curl_rl.rl.workers import Beginning, EnvironmentFault, WorkerEnvironment, WorkerEnvironments
from curl_rl.runs import session
from curl_rl.runs.errors import UserError
from helpers.corridor import Corridor, assert_same_run, at, differing, networks, resumed, state, tiny, trained


@pytest.mark.parametrize("act", [lambda: sys.exit(), lambda: next(iter(()))])
def test_an_environment_that_would_end_the_program_saves_and_the_run_resumes_bit_for_bit(
    undisturbed: Path, tmp_path: Path, act: Callable[[], object]
) -> None:
    config = tiny(tmp_path / "run")
    with pytest.raises(TrainingFault, match=r"step\(\) (called sys.exit|raised Stop).*; the run is saved: fix"):
        trained(config, at(17, act))
    resumed(config)
    assert_same_run(tmp_path / "run", undisturbed)


def test_an_environment_changes_neither_the_runs_place_nor_its_random_numbers(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def disturb(step: int) -> None:
        assert step == 1 or os.getcwd() == "/"
        os.chdir("/")
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(step)

    trained(tiny(Path("relative") / "run"), disturb)
    # The checkpoint also holds the state of the global generators, since environments may use them.
    assert differing(networks(tmp_path / "relative" / "run"), networks(undisturbed)) == []


def test_a_count_of_environment_steps_below_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Corridor.step

    def backward(env: Corridor, action: Any) -> Any:
        *outcome, info = step(env, action)
        return *outcome, info | ({"environment_steps": -1} if env.count == 20 else {})

    monkeypatch.setattr(Corridor, "step", backward)
    line = r'info\["environment_steps"\] must be a whole number of at least 1, got -1; the run is saved'
    with pytest.raises(TrainingFault, match=line):
        trained(tiny(tmp_path / "run", evaluation=EvaluationConfig(every=0)))


def test_a_run_that_is_done_survives_a_close_that_fails(undisturbed: Path, tmp_path: Path) -> None:
    class Stuck(Corridor):
        def close(self) -> None:
            raise OSError("the simulator does not answer")

    assert_same_run(train(tiny(tmp_path / "run"), Stuck), undisturbed)


# ---- the run's directory


@pytest.mark.parametrize("lost", ["", "config.yaml"])
def test_a_run_whose_files_are_deleted_ends_with_a_fault_and_makes_nothing_anew(tmp_path: Path, lost: str) -> None:
    run = tmp_path / "run"

    def delete() -> None:
        gone = run / lost
        gone.unlink() if gone.is_file() else shutil.rmtree(gone)

    with pytest.raises(TrainingFault, match=r"was deleted or moved while the run used it; put it back and start"):
        trained(tiny(run), at(17, delete))
    assert not (run / lost).exists()


def test_deleted_checkpoints_are_made_up_for_by_the_next_one(undisturbed: Path, tmp_path: Path) -> None:
    trained(tiny(tmp_path / "run"), at(17, lambda: shutil.rmtree(tmp_path / "run" / "checkpoints")))
    assert_same_run(tmp_path / "run", undisturbed)


def test_no_state_is_saved_twice_and_what_a_killed_save_left_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    save = session.checkpoint.save

    def noting(directory: Path, frames: int, *arguments: Any, **named: Any) -> Path:
        saved.append(frames)
        return save(directory, frames, *arguments, **named)

    monkeypatch.setattr(session.checkpoint, "save", noting)
    config = tiny(tmp_path / "run", checkpoint=CheckpointConfig(every=1))
    trained(config)
    assert saved == sorted(set(saved))
    left = [tmp_path / "run" / f"{name}.partial" for name in ("checkpoints/0000000061.ckpt", "encoder.safetensors")]
    for path in left:
        path.write_bytes(b"half of it")
    trained(config)
    assert not any(path.exists() for path in left)


# ---- time


class Hanging(Corridor):
    """Does not return from ``method`` the second time."""

    def __init__(self, method: str) -> None:
        super().__init__()
        self.method, self.calls = method, 0

    def call(self, method: str) -> None:
        self.calls += method == self.method
        if self.calls == 2:
            time.sleep(600)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.call("reset")
        return super().reset(seed=seed)

    def step(self, action: Any) -> Any:
        self.call("step")
        return super().step(action)


class Hangs:
    def __init__(self, method: str) -> None:
        self.method = method

    def __call__(self) -> Hanging:
        return Hanging(self.method)


@pytest.mark.parametrize("method", ["reset", "step"])
def test_a_call_that_does_not_return_ends_with_its_process(method: str) -> None:
    environments = WorkerEnvironments(Hangs(method), step_timeout=3)
    try:
        environments.begin({0: Beginning(0)})

        def play() -> None:
            for seed in range(2):
                environments.send(np.zeros((1, 2), np.float32))
                environments.receive()
                environments.begin({0: Beginning(seed)})

        line = rf"^{method}\(\) of environment 0 did not return within 3 s \(training.step_timeout\), so its process"
        with pytest.raises(EnvironmentFault, match=line):
            play()
    finally:
        environments.close()
    assert not any(process.is_alive() for process in environments._vector.processes)


def test_an_environment_in_a_worker_plays_as_here() -> None:
    there, here = WorkerEnvironment(Corridor, 60), Corridor()
    try:
        assert np.array_equal(there.reset(seed=5)[0], here.reset(seed=5)[0])
        action = np.array([0.5, -0.5], np.float32)
        ours, theirs = here.step(action), there.step(action)
        assert np.array_equal(ours[0], theirs[0])
        assert ours[1:] == theirs[1:]
        assert (there.metadata, there.max_episode_steps) == (here.metadata, None)
    finally:
        there.close()


@pytest.mark.slow
def test_a_run_with_a_limit_on_steps_is_the_same_and_may_be_resumed_with_another(
    undisturbed: Path, tmp_path: Path
) -> None:
    config = tiny(tmp_path / "run", frames=30)
    limited = TrainingConfig(random_steps=6, step_timeout=0.5)
    with pytest.raises(TrainingFault, match=r"step\(\) .* did not return within 0.5 s .*; the run is saved"):
        train(replace(config, training=limited, evaluation=EvaluationConfig(every=0)), Hangs("step"))
    shutil.rmtree(tmp_path / "run")
    train(replace(config, training=replace(limited, step_timeout=60)), Corridor)
    resumed(tiny(tmp_path / "run"))
    assert differing(networks(undisturbed), networks(tmp_path / "run")) == []
    with pytest.raises(UserError, match="belongs to a run with other settings"):
        trained(tiny(tmp_path / "run", training=TrainingConfig(random_steps=7)))
    assert state(tmp_path / "run")["/progress/frames"] >= 60
