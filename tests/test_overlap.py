"""An environment in another process gives what it gives in this one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

import envs
from curl_rl.config import CheckpointConfig, RunConfig, load_preset
from curl_rl.learner import Learner
from curl_rl.overlap import OverlappedEnvironment
from curl_rl.training import TrainingFault, load_agent, train


def make() -> Any:
    return envs.make("tiny-reach", size=16, stack=2, action_repeat=2)


@pytest.fixture(scope="module")
def overlapped() -> Iterator[OverlappedEnvironment]:
    environment = OverlappedEnvironment(make)
    yield environment
    environment.close()


def test_episodes_are_the_same_as_in_this_process(overlapped: OverlappedEnvironment) -> None:
    here = make()
    assert overlapped.observation_space == here.observation_space
    assert overlapped.action_space == here.action_space
    generator = np.random.default_rng(0)
    kept: list[tuple[Any, Any]] = []
    for seed in (3, 4):
        assert np.array_equal(overlapped.reset(seed=seed)[0], here.reset(seed=seed)[0])
        over = False
        while not over:
            action = generator.uniform(-1, 1, 2).astype(np.float32)
            overlapped.send(action)
            expected = here.step(action)
            outcome = overlapped.receive()
            assert outcome[1:] == (*expected[1:4], expected[4])
            kept.append((outcome[0], expected[0]))
            over = outcome[2] or outcome[3]
    for ours, theirs in kept:  # compared last: what was handed out is not written to again
        assert np.array_equal(ours, theirs)


class Nested(gymnasium.Env[Any, Any]):
    observation_space = gymnasium.spaces.Box(0, 255, (3, 4, 4), np.uint8)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return np.zeros((3, 4, 4), np.uint8), {}

    def step(self, action: Any) -> Any:
        return np.zeros((3, 4, 4), np.uint8), 0.0, False, False, {"environment_steps": 2, "episode": {"length": 7}}


def test_an_info_within_an_info_arrives_and_this_process_still_hears_ctrl_c() -> None:
    before = signal.getsignal(signal.SIGINT)
    environment = OverlappedEnvironment(Nested)
    assert signal.getsignal(signal.SIGINT) is before
    environment.reset(seed=0)
    info = environment.step(np.zeros(1, np.float32))[4]
    assert info == {"environment_steps": 2, "episode": {"length": 7}}
    (process,) = environment._vector.processes
    process.kill()
    process.join()
    with pytest.raises(RuntimeError, match="the environment's process died"):
        environment.step(np.zeros(1, np.float32))
    environment.close()


class Broken(gymnasium.Env[Any, Any]):
    observation_space = gymnasium.spaces.Box(0, 255, (3, 4, 4), np.uint8)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return np.zeros((3, 4, 4), np.uint8), {}

    def step(self, action: Any) -> Any:
        raise OSError("the simulator lost its licence")


def test_what_the_environment_raises_there_is_raised_here() -> None:
    environment = OverlappedEnvironment(Broken)
    environment.reset(seed=0)
    environment.send(np.zeros(1, np.float32))
    with pytest.raises(OSError, match="the simulator lost its licence"):
        environment.receive()
    environment.close()
    environment.close()


def test_it_closes_with_a_step_under_way() -> None:
    environment = OverlappedEnvironment(make)
    environment.reset(seed=0)
    environment.send(np.zeros(2, np.float32))
    environment.close()


def test_an_interrupt_of_the_whole_terminal_does_not_stop_the_environment(overlapped: OverlappedEnvironment) -> None:
    overlapped.reset(seed=0)
    (process,) = overlapped._vector.processes
    os.kill(process.pid, signal.SIGINT)
    assert overlapped.step(np.zeros(2, np.float32))[0].shape == (6, 16, 16)


def tiny(run: Path, frames: int, *, overlap: bool = True) -> RunConfig:
    changes = {
        "training": {"random_steps": 8, "overlap": overlap},
        "environment": {"size": 16, "stack": 2},
        "agent": {"crop": 14, "batch_size": 4, "hidden": 8, "encoder": {"filters": 2, "strides": [2, 1]}},
        "evaluation": {"every": 0},
    }
    return load_preset("cpu", "tiny-reach", {**changes, "frames": frames, "run": str(run), "device": "cpu"})


def make_tiny() -> Any:
    return envs.make("tiny-reach", size=16, stack=2)


def test_a_run_that_is_stopped_in_an_episode_and_resumed_ends_the_same(tmp_path: Path) -> None:
    train(tiny(tmp_path / "whole", 60), make_tiny)
    for frames in (33, 60):
        train(tiny(tmp_path / "stopped", frames), make_tiny)
    whole, stopped = (load_agent(tmp_path / name)[0].state_dict() for name in ("whole", "stopped"))
    for name, value in whole.items():
        assert torch.equal(value, stopped[name]), name


class BreaksOnce:
    """Makes an environment whose 20th step raises, as long as a file is there."""

    def __init__(self, trap: Path) -> None:
        self.trap = trap

    def __call__(self) -> Any:
        environment, trap, count = make_tiny(), self.trap, 0
        step = environment.step

        def breaking(action: Any) -> Any:
            nonlocal count
            count += 1
            if count == 20 and trap.exists():
                raise OSError("the simulator lost its licence")
            return step(action)

        environment.step = breaking
        return environment


def test_a_fault_beside_an_overlapped_update_leaves_the_last_checkpoint_and_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "trap").touch()

    def config(name: str) -> RunConfig:
        return replace(tiny(tmp_path / name, 40), checkpoint=CheckpointConfig(every=5))

    with pytest.raises(TrainingFault) as fault:
        train(config("broken"), BreaksOnce(tmp_path / "trap"))
    line = str(fault.value)
    assert "the simulator lost its licence; the last checkpoint is intact: mend the environment and start" in line
    assert "\n" not in line
    assert len(list((tmp_path / "broken" / "checkpoints").glob("*.ckpt"))) == 2
    (tmp_path / "trap").unlink()
    for name in ("broken", "alone"):
        train(config(name), BreaksOnce(tmp_path / "trap"))
    broken, alone = (load_agent(tmp_path / name)[0].state_dict() for name in ("broken", "alone"))
    for name, value in alone.items():
        assert torch.equal(value, broken[name]), name


@pytest.mark.parametrize("overlap", [False, True])
def test_an_update_a_step_with_or_without_the_newest_transition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overlap: bool
) -> None:
    known = []
    update = Learner.update

    def noting(self: Learner, *, diagnose: bool = False) -> dict[str, torch.Tensor]:
        known.append(len(self.replay))
        return update(self, diagnose=diagnose)

    monkeypatch.setattr(Learner, "update", noting)
    train(tiny(tmp_path / "run", 40, overlap=overlap), make_tiny)
    first = 8 if overlap else 9  # the ninth step is the first that is not random
    assert known == list(range(first, first + 32))
