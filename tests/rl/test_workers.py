"""Environments behave in other processes as in this one."""

from __future__ import annotations

import errno
import functools
import gc
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

import envs
from curl_rl.rl import workers as workers_module
from curl_rl.rl.config import CheckpointConfig, RunConfig, load_preset
from curl_rl.rl.learner import Learner
from curl_rl.rl.loading import load_agent
from curl_rl.rl.training import TrainingFault, train
from curl_rl.rl.workers import Beginning, EnvironmentFault, LocalEnvironment, WorkerEnvironments
from curl_rl.runs import checkpoint
from curl_rl.runs.errors import UserError
from curl_rl.runs.seeds import derived_seed


def make() -> Any:
    return envs.make("tiny-reach", size=16, stack=2, action_repeat=2)


@pytest.fixture(scope="module")
def two() -> Iterator[WorkerEnvironments]:
    environment = WorkerEnvironments(make, 2)
    yield environment
    environment.close()


def test_episodes_are_the_same_as_in_this_process(two: WorkerEnvironments) -> None:
    here = [make(), make()]
    assert two.observation_space == here[0].observation_space
    assert two.action_space == here[0].action_space
    generator = np.random.default_rng(0)
    kept: list[tuple[Any, Any]] = []
    over = [True, True]
    begun = 0
    for _ in range(150):  # the episodes of the two end at different times, as the first of the second is begun late
        episodes = {}
        for number in range(2):
            if over[number] and not (number == 1 and begun == 0):
                begun += 1
                episodes[number] = Beginning(begun)
        if begun == 1:
            episodes[1] = Beginning(9, [np.full(2, 0.5, np.float32)] * 20)
            begun += 1
        for number, first in two.begin(episodes).items():
            expected = here[number].reset(seed=episodes[number].seed)[0]
            for action in episodes[number].actions:
                expected = here[number].step(action)[0]
            kept.append((first, expected))
        actions = generator.uniform(-1, 1, (2, 2)).astype(np.float32)
        two.send(actions)
        right = [environment.step(action) for environment, action in zip(here, actions, strict=True)]
        for number, (outcome, expected) in enumerate(zip(two.receive(), right, strict=True)):
            assert outcome[1:] == (*expected[1:4], expected[4])
            kept.append((outcome[0], expected[0]))
            over[number] = outcome[2] or outcome[3]
    assert begun >= 5
    for ours, theirs in kept:  # compared last: returned observations are not overwritten
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("workers", [False, True])
def test_an_episode_that_is_over_before_its_actions_is_none(two: WorkerEnvironments, workers: bool) -> None:
    environments = two if workers else LocalEnvironment(make())
    still = np.zeros(2, np.float32)
    here, steps, over = make(), 0, False
    here.reset(seed=4)
    while not over:
        _, _, terminated, truncated, _ = here.step(still)
        over, steps = terminated or truncated, steps + 1
    for taken in (steps, steps + 1):
        assert environments.begin({0: Beginning(4, [still] * taken)}) == {0: None}
    (first,) = environments.begin({0: Beginning(4, [still] * (steps - 1))}).values()
    assert first is not None
    assert environments.begin({}) == {}


class Nested(gymnasium.Env[Any, Any]):
    observation_space = gymnasium.spaces.Box(0, 255, (3, 4, 4), np.uint8)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return np.zeros((3, 4, 4), np.uint8), {}

    def step(self, action: Any) -> Any:
        return np.zeros((3, 4, 4), np.uint8), 0.0, False, False, {"environment_steps": 2, "episode": {"length": 7}}


def test_an_info_within_an_info_arrives_and_this_process_still_handles_ctrl_c() -> None:
    before = signal.getsignal(signal.SIGINT)
    environment = WorkerEnvironments(Nested)
    assert signal.getsignal(signal.SIGINT) is before
    environment.begin({0: Beginning(0)})
    still = np.zeros((1, 1), np.float32)
    environment.send(still)
    assert environment.receive()[0][4] == {"environment_steps": 2, "episode": {"length": 7}}
    (process,) = environment._vector.processes
    process.kill()
    process.join()

    def step() -> None:
        environment.send(still)
        environment.receive()

    with pytest.raises(RuntimeError, match="the environment's process died"):
        step()
    environment.close()


class Broken(gymnasium.Env[Any, Any]):
    observation_space = gymnasium.spaces.Box(0, 255, (3, 4, 4), np.uint8)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return np.zeros((3, 4, 4), np.uint8), {}

    def step(self, action: Any) -> Any:
        raise OSError("the simulator lost its licence")


def test_an_exception_in_a_worker_is_raised_here() -> None:
    environment = WorkerEnvironments(Broken)
    environment.begin({0: Beginning(0)})
    environment.send(np.zeros((1, 1), np.float32))
    with pytest.raises(EnvironmentFault, match="OSError: the simulator lost its licence"):
        environment.receive()
    environment.close()
    environment.close()


class Display:
    """A limited resource: ``count`` for the workers, and one for this process, which inspects the spaces."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count

    def __call__(self) -> Any:
        if multiprocessing.parent_process() is not None:
            taken = self.folder / str(os.getpid())
            taken.touch()
            if len(list(self.folder.iterdir())) > self.count:
                taken.unlink()
                raise OSError("no display is left")
        return make()


@pytest.mark.parametrize("displays", [0, 1])
def test_the_reason_that_a_worker_could_not_make_its_environment_is_raised_here(
    displays: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    started, start = [], SpawnProcess.start

    def seen(process: SpawnProcess) -> None:
        start(process)
        started.append(process._popen)  # type: ignore[attr-defined]

    monkeypatch.setattr(SpawnProcess, "start", seen)
    with pytest.raises(EnvironmentFault, match="OSError: no display is left"):
        WorkerEnvironments(Display(tmp_path, displays), 2)
    gc.collect()  # the partly constructed one, kept alive by pytest's record of the error
    assert len(started) == 2
    assert [process.wait(timeout=30) for process in started] == [0, 0], "they end by themselves"
    assert "EOFError" not in capfd.readouterr().err


def test_it_closes_during_a_step() -> None:
    environment = WorkerEnvironments(make)
    environment.begin({0: Beginning(0)})
    environment.send(np.zeros((1, 2), np.float32))
    environment.close()


def test_an_interrupt_of_the_whole_terminal_does_not_stop_the_environment(two: WorkerEnvironments) -> None:
    two.begin({0: Beginning(0), 1: Beginning(1)})
    for process in two._vector.processes:
        os.kill(process.pid, signal.SIGINT)
        os.kill(process.pid, signal.SIGTERM)
    two.send(np.zeros((2, 2), np.float32))
    assert [outcome[0].shape for outcome in two.receive()] == [(6, 16, 16)] * 2


def tiny(run: Path, frames: int, *, overlap: bool = True, environments: int = 1) -> RunConfig:
    changes = {
        "training": {"random_steps": 8, "overlap": overlap, "environments": environments},
        "environment": {"size": 16, "stack": 2},
        "agent": {"crop": 14, "batch_size": 4, "hidden": 8, "encoder": {"filters": 2, "strides": [2, 1]}},
        "evaluation": {"every": 0},
    }
    return load_preset("cpu", "tiny-reach", {**changes, "frames": frames, "run": str(run), "device": "cpu"})


def make_tiny() -> Any:
    return envs.make("tiny-reach", size=16, stack=2)


@pytest.mark.parametrize(
    ("overlap", "environments", "stops"), [(True, 1, (33,)), (True, 3, (30, 90)), (False, 2, (70,))]
)
def test_a_run_that_is_stopped_in_an_episode_and_resumed_ends_the_same(
    tmp_path: Path, overlap: bool, environments: int, stops: tuple[int, ...]
) -> None:
    how = {"overlap": overlap, "environments": environments}
    train(tiny(tmp_path / "whole", 120, **how), make_tiny)
    for frames in (*stops, 120):
        train(tiny(tmp_path / "stopped", frames, **how), make_tiny)
    whole, stopped = (load_agent(tmp_path / name)[0].state_dict() for name in ("whole", "stopped"))
    for name, value in whole.items():
        assert torch.equal(value, stopped[name]), name


class Own(Exception):
    """An exception that cannot be unpickled."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} and {other}")


class Failing(Nested):
    """Fails on its third step, in the given way."""

    def __init__(self, how: str) -> None:
        self.how, self.count = how, 0

    def step(self, action: Any) -> Any:
        self.count += 1
        if self.count == 3:
            if self.how == "own exception":
                raise Own("hydraulics", "pneumatics")
            if self.how == "odd exception":
                b"\xff".decode()
            if self.how == "not finite":
                raise FloatingPointError("the simulator diverged")
            if self.how == "shape":
                return np.zeros((4, 4, 3), np.uint8), 0.0, False, False, {}
            if self.how == "dtype":
                return np.full((3, 4, 4), 0.7, np.float32), 0.0, False, False, {}
            os._exit(3)
        return super().step(action)


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        ("own exception", EnvironmentFault, "Own: hydraulics and pneumatics"),
        ("odd exception", EnvironmentFault, "UnicodeDecodeError: .* codec can't decode"),
        ("not finite", FloatingPointError, "the simulator diverged"),
        ("shape", EnvironmentFault, r"observation must be uint8 \(3, 4, 4\), got uint8 \(4, 4, 3\)"),
        ("dtype", EnvironmentFault, r"observation must be uint8 \(3, 4, 4\), got float32 \(3, 4, 4\)"),
        ("death", RuntimeError, "the environment's process died"),
    ],
)
def test_any_fault_of_one_of_several_is_reported_and_all_are_closed(
    how: str, kind: type[Exception], message: str
) -> None:
    environments = WorkerEnvironments(functools.partial(Failing, how), 2)
    environments.begin({0: Beginning(0), 1: Beginning(1)})
    still = np.zeros((2, 1), np.float32)

    def play() -> None:
        for _ in range(3):
            environments.send(still)
            environments.receive()

    with pytest.raises(kind, match=message):
        play()
    environments.close()
    assert not any(process.is_alive() for process in environments._vector.processes)


class BreaksOnce:
    """Makes an environment whose 20th step raises while a file exists."""

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


def test_a_fault_during_an_overlapped_update_leaves_the_last_checkpoint_and_names_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "trap").touch()

    def config(name: str) -> RunConfig:
        return replace(tiny(tmp_path / name, 40), checkpoint=CheckpointConfig(every=5))

    with pytest.raises(TrainingFault) as fault:
        train(config("broken"), BreaksOnce(tmp_path / "trap"))
    line = str(fault.value)
    assert "the simulator lost its licence; the last checkpoint is intact: fix the environment and start" in line
    assert "\n" not in line
    assert len(list((tmp_path / "broken" / "checkpoints").glob("*.ckpt"))) == 2
    (tmp_path / "trap").unlink()
    for name in ("broken", "alone"):
        train(config(name), BreaksOnce(tmp_path / "trap"))
    broken, alone = (load_agent(tmp_path / name)[0].state_dict() for name in ("broken", "alone"))
    for name, value in alone.items():
        assert torch.equal(value, broken[name]), name


@pytest.mark.parametrize(
    ("overlap", "environments", "known"),
    [
        (False, 1, list(range(9, 41))),  # the ninth step is the first that is not random
        (True, 1, list(range(8, 40))),
        (False, 3, [9, *(n for n in range(12, 43, 3) for _ in range(3))]),  # steps 7, 8, 9: one of them is not random
        (True, 3, [6, *(n for n in range(9, 40, 3) for _ in range(3))]),
    ],
)
def test_an_update_a_step_with_or_without_the_newest_transitions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overlap: bool, environments: int, known: list[int]
) -> None:
    seen = []
    update = Learner.update

    def noting(self: Learner, *, diagnose: bool = False) -> dict[str, torch.Tensor]:
        seen.append(len(self.replay))
        return update(self, diagnose=diagnose)

    monkeypatch.setattr(Learner, "update", noting)
    train(tiny(tmp_path / "run", 40, overlap=overlap, environments=environments), make_tiny)
    assert seen == known


def test_several_environments_play_the_episodes_that_one_plays_with_the_same_actions(tmp_path: Path) -> None:
    """The oracle is tiny-reach itself, played with the run's recorded actions and seeds."""
    config = tiny(tmp_path / "run", 90, environments=3)
    train(config, make_tiny)
    _, found = checkpoint.load_newest(tmp_path / "run" / "checkpoints", read_only=True) or (None, {})
    under_way = found["progress"]["under_way"]
    assert len({episode["number"] for episode in under_way.values()}) == len(under_way) >= 2
    for episode in under_way.values():
        environment = make_tiny()
        observation, _ = environment.reset(seed=derived_seed(config.seed, "training episode", episode["number"]))
        total = 0.0
        for action in episode["actions"]:
            observation, reward, *_ = environment.step(action.numpy())
            total += reward
        assert np.array_equal(observation, episode["observation"].numpy())
        assert total == pytest.approx(episode["total"])


class NeverMade:
    """Hangs when it is made in a worker."""

    def __call__(self) -> Any:
        if multiprocessing.parent_process() is not None:
            time.sleep(3600)
        return make()


def test_a_construction_that_hangs_in_a_worker_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, "_TO_CONSTRUCT", 0.5)
    before = multiprocessing.active_children()
    with pytest.raises(EnvironmentFault, match=r"construction .*(took more than|had not returned after) 1 s"):
        WorkerEnvironments(NeverMade(), 2, step_timeout=0.5)
    gc.collect()
    left = [process for process in multiprocessing.active_children() if process not in before]
    for process in left:
        process.join(10)  # a killed process takes a moment to end
    assert not any(process.is_alive() for process in left)


def test_shared_memory_without_room_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("gymnasium.vector.async_vector_env.create_shared_memory", full)
    config = load_preset("cpu", "tiny-reach")
    config = replace(config, run=tmp_path / "run", device="cpu", training=replace(config.training, environments=2))
    with pytest.raises(UserError, match=r"^environment: No space left on device: free some disk space$"):
        train(config, make)
    assert not (tmp_path / "run").exists()
