"""An environment in a process of its own, which simulates and draws while this one learns."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import signal
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AsyncVectorEnv, AutoresetMode

Observation = npt.NDArray[np.uint8]
Environment = gymnasium.Env[Observation, npt.NDArray[np.float32]]
Outcome = tuple[Observation, float, bool, bool, dict[str, Any]]


class OverlappedEnvironment(gymnasium.Env[Observation, npt.NDArray[np.float32]]):
    """Runs what ``make`` makes in another process; :meth:`send` an action, do something else, :meth:`receive`.

    Observations come back through shared memory. The process is spawned, not forked, because a forked child of one that
    has drawn hangs. What the environment raises there is raised here.

    Args:
        make: makes the environment, over there; cloudpickle must be able to carry it.
    """

    def __init__(self, make: Callable[[], Environment]) -> None:
        # We start episodes ourselves, each with a seed of its own.
        make_there = functools.partial(_make_undisturbed, make)
        self._vector = AsyncVectorEnv([make_there], context="spawn", autoreset_mode=AutoresetMode.DISABLED)
        self.observation_space = self._vector.single_observation_space
        self.action_space = self._vector.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts an episode."""
        with _alive():
            observations, infos = self._vector.reset(seed=[seed], options=options)
        return observations[0], _only(infos)

    def send(self, action: npt.NDArray[np.float32]) -> None:
        """Begins a step; it must be received before anything else is asked."""
        with _alive():
            self._vector.step_async(action[None])

    def receive(self) -> Outcome:
        """Waits for the step that was sent, and returns what ``step`` returns."""
        with _alive():
            observations, rewards, terminated, truncated, infos = self._vector.step_wait()
        return observations[0], float(rewards[0]), bool(terminated[0]), bool(truncated[0]), _only(infos)

    def step(self, action: npt.NDArray[np.float32]) -> Outcome:
        """Sends and receives."""
        self.send(action)
        return self.receive()

    def close(self) -> None:
        """Ends the process, and a step that is under way with it."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the step under way
            self._vector.close(terminate=True)


def _make_undisturbed(make: Callable[[], Environment]) -> Environment:
    """Ctrl-C reaches every process of a terminal; only the one that trains shall act on it.

    gymnasium makes an environment here as well, to look at its spaces.
    """
    if multiprocessing.parent_process() is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return make()


def _only(infos: dict[str, Any]) -> dict[str, Any]:
    """The info of the one environment: gymnasium gathers each entry in an array, beside a mask with an underscore."""
    return {
        name: _only(values) if isinstance(values, dict) else values[0]
        for name, values in infos.items()
        if not name.startswith("_")
    }


@contextlib.contextmanager
def _alive() -> Iterator[None]:
    try:
        yield
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise RuntimeError("the environment's process died") from None
