"""Environments that misbehave: what they return, raise, and do to the process they run in."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from curl_rl.rl import contained as contained_module
from curl_rl.rl.contained import EnvironmentFault, contained
from curl_rl.runs.errors import UserError
from curl_rl.runs.signals import stop_requests

PICTURE = np.zeros((3, 4, 4), np.uint8)
GOOD = (PICTURE, 0.5, False, False, {})
STILL = np.zeros(1, np.float32)


class Odd(gymnasium.Env[Any, Any]):
    """Does ``act`` in every method, and returns ``outcome`` from a step."""

    observation_space = gymnasium.spaces.Box(0, 255, (3, 4, 4), np.uint8)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    max_episode_steps = 7

    def __init__(
        self, act: Callable[[], object] = lambda: None, outcome: Any = (PICTURE, 0.5, False, False, {})
    ) -> None:
        self.act, self.outcome = act, outcome

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.act()
        return PICTURE, {}

    def step(self, action: Any) -> Any:
        self.act()
        return self.outcome

    def render(self) -> Any:
        self.act()

    def close(self) -> None:
        self.act()


def raising(error: BaseException) -> Callable[[], object]:
    def act() -> None:
        raise error

    return act


@pytest.mark.parametrize("method", ["construction", "reset()", "step()", "render()"])
@pytest.mark.parametrize(
    ("act", "did"),
    [
        (lambda: sys.exit(3), "called sys.exit(3)"),
        (lambda: next(iter(())), "raised StopIteration"),
        (raising(asyncio.CancelledError("late")), "raised CancelledError: late"),
    ],
)
def test_nothing_that_would_end_a_loop_or_the_program_passes(method: str, act: Callable[[], object], did: str) -> None:
    def made() -> Any:
        if method == "construction":
            act()
        return Odd(act)

    def call() -> None:
        environment = contained(made)
        environment.step(STILL) if method == "step()" else getattr(environment, method.removesuffix("()"))()

    with pytest.raises(EnvironmentFault, match=rf"^the environment's {re.escape(method)} {re.escape(did)}$"):
        call()


def test_other_exceptions_pass_unchanged() -> None:
    error = KeyError("no level")
    with pytest.raises(KeyError) as raised:
        contained(lambda: Odd(raising(error))).step(STILL)
    assert raised.value is error


def test_a_keyboard_interrupt_is_the_environments_own_unless_ctrl_c_may_cause_one() -> None:
    environment = contained(lambda: Odd(raising(KeyboardInterrupt())))
    with pytest.raises(KeyboardInterrupt):
        environment.step(STILL)
    with stop_requests(), pytest.raises(EnvironmentFault, match="raised KeyboardInterrupt"):
        environment.step(STILL)
    with stop_requests():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            environment.step(STILL)


def test_handlers_of_an_environment_last_as_long_as_its_call() -> None:
    def act() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)

    environment = contained(lambda: Odd(act))
    with stop_requests() as stop:
        environment.step(STILL)
        signal.raise_signal(signal.SIGTERM)
        assert stop.signal_number == signal.SIGTERM
        environment.step(STILL)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, "the second one ends the process"


def test_a_signal_during_a_call_is_not_undone_and_says_what_the_stop_waits_for(
    capfd: pytest.CaptureFixture[str],
) -> None:
    environment = contained(lambda: Odd(lambda: signal.raise_signal(signal.SIGTERM)))
    with stop_requests(tell=True) as stop:
        environment.step(STILL)
        assert stop
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert "SIGTERM: saving and stopping after this step, once the environment's step() returns; again: exits" in (
            capfd.readouterr().err
        )


def test_an_environment_has_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    monkeypatch.chdir(ours)
    seen: list[str] = []

    def act() -> None:
        seen.append(os.getcwd())
        os.chdir(theirs)

    environment = contained(lambda: Odd(act))
    for _ in range(2):
        environment.step(STILL)
        assert os.getcwd() == str(ours)
    assert seen == [str(ours), str(theirs)]


@pytest.mark.parametrize(
    ("outcome", "line"),
    [
        (None, r"step must return \(observation, reward, terminated, truncated, info\), got None"),
        ((PICTURE, 0.0, False, {}), "step must return .*, got 4 values"),
        ((PICTURE[:, :2], 0.0, False, False, {}), r"observation must be uint8 \(3, 4, 4\), got uint8 \(3, 2, 4\)"),
        ((PICTURE[:0], 0.0, False, False, {}), r"got uint8 \(0, 4, 4\)"),
        ((PICTURE * np.nan, 0.0, False, False, {}), r"got float64 \(3, 4, 4\)"),
        ((PICTURE, None, False, False, {}), "reward must be a number, got None"),
        ((PICTURE, [1, 2], False, False, {}), "reward must be a number, got a list"),
        ((PICTURE, 0.0, None, False, {}), "terminated must be true or false, got None"),
        ((PICTURE, 0.0, False, np.zeros(2, bool), {}), "truncated must be true or false, got a ndarray"),
        ((PICTURE, 0.0, False, False, None), "info must be a dict, got None"),
        *(
            ((PICTURE, 0.0, False, False, {"environment_steps": steps}), r"must be a whole number of at least 1, got")
            for steps in (0, -1, 1.5, np.nan, np.inf, None, "2", True)
        ),
    ],
)
def test_a_step_that_returns_something_else_is_refused_in_one_line(outcome: Any, line: str) -> None:
    with pytest.raises(UserError, match=line) as raised:
        contained(lambda: Odd(outcome=outcome)).step(STILL)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("reward", [2, np.float32(2), np.array([2.0]), np.array(2)])
@pytest.mark.parametrize("flag", [True, np.True_, 1, np.array(1)])
def test_what_has_one_meaning_is_taken(reward: Any, flag: Any) -> None:
    outcome = (PICTURE, reward, flag, False, {"environment_steps": np.int64(3)})
    _, number, terminated, truncated, info = contained(lambda: Odd(outcome=outcome)).step(STILL)
    assert (type(number), number, terminated, truncated, info) == (float, 2.0, True, False, {"environment_steps": 3})
    assert terminated is True


def test_attributes_are_those_of_the_environment() -> None:
    environment = contained(Odd)
    assert environment.max_episode_steps == 7
    assert not hasattr(environment, "state_names")
    with pytest.raises(EnvironmentFault, match=r"make_environment must return a gymnasium\.Env, got None"):
        contained(lambda: None)  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize("act", [raising(OSError("the socket is gone")), lambda: sys.exit(1)])
def test_a_close_that_fails_is_reported_and_loses_nothing(
    act: Callable[[], object], capsys: pytest.CaptureFixture[str]
) -> None:
    contained(lambda: Odd(act)).close()
    assert "the environment's close() failed, which changes nothing that was saved: " in capsys.readouterr().err


def test_a_close_that_takes_long_is_announced(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(contained_module, "_PATIENCE", 0.0)
    said = "waiting for the environment's close(), after which nothing remains to be done"

    def wait_for_the_line() -> None:
        while said not in capsys.readouterr().err:
            pass

    contained(lambda: Odd(wait_for_the_line)).close()


def test_a_close_that_does_not_return_is_interrupted_and_the_command_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def forever() -> None:
        while True:
            with contextlib.suppress(Exception):  # it may catch whatever it likes
                time.sleep(3600)

    monkeypatch.setattr(contained_module, "_LAST_PATIENCE", 0.1)
    before = signal.getsignal(signal.SIGALRM)
    contained(lambda: Odd(forever)).close()
    assert "close() had not returned after 0.1 s, and was interrupted" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_construction_that_does_not_return_is_interrupted_where_it_has_a_limit() -> None:
    def forever() -> Any:
        time.sleep(3600)

    with pytest.raises(EnvironmentFault, match=r"^the environment's construction had not returned after 0\.1 s, and"):
        contained(forever, time_limit=0.1)
    assert contained(Odd, time_limit=60).max_episode_steps == 7
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
