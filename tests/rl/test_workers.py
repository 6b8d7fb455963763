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

import envs
from curl_rl.rl import workers as workers_module
from curl_rl.rl.config import load_preset
from curl_rl.rl.training import train
from curl_rl.rl.workers import Beginning, EnvironmentFault, LocalEnvironment, WorkerEnvironments
from curl_rl.runs.errors import UserError


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
