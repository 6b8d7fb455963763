"""The environments of a run: one in this process, or one or more in worker processes that step concurrently."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode
from gymnasium.vector.async_vector_env import AsyncState, _async_worker
from gymnasium.vector.utils import create_empty_array

from curl_rl.rl.contained import Action as Action  # re-exported, like the next three
from curl_rl.rl.contained import Environment as Environment
from curl_rl.rl.contained import EnvironmentFault as EnvironmentFault
from curl_rl.rl.contained import Observation as Observation
from curl_rl.rl.contained import Outcome as Outcome
from curl_rl.rl.contained import contained
from curl_rl.rl.observations import observation_spec
from curl_rl.runs.errors import UserError
from curl_rl.runs.signals import waiting_for

_TO_CONSTRUCT = 60.0
"""Seconds, beyond the limit on a step, in which a worker must have started and made its environment."""


class Beginning(NamedTuple):
    """The beginning of an episode: a seed, and actions to replay after the reset."""

    seed: int
    actions: Sequence[Action] = ()


class Environments(Protocol):
    """``count`` environments, numbered from 0, that step together."""

    count: int
    observation_space: gymnasium.Space[Any]
    action_space: gymnasium.Space[Any]

    def begin(self, episodes: Mapping[int, Beginning]) -> dict[int, Observation | None]:
        """Starts episodes and returns their observations after the replayed actions; None if one ended earlier."""

    def send(self, actions: Action) -> None:
        """Begins a step of every environment with its row of ``(count, A)``; :meth:`receive` must follow."""

    def receive(self) -> list[Outcome]:
        """Waits for the step, and returns each environment's outcome."""

    def close(self) -> None:
        """Closes all environments and ends their processes."""


class LocalEnvironment:
    """One environment in this process; :meth:`receive` does the step."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.count = 1
        self.observation_space, self.action_space = environment.observation_space, environment.action_space
        self._action: Action | None = None

    def begin(self, episodes: Mapping[int, Beginning]) -> dict[int, Observation | None]:
        """See :class:`Environments`."""
        return {number: _begin(self.environment, beginning)[0] for number, beginning in episodes.items()}

    def send(self, actions: Action) -> None:
        """See :class:`Environments`."""
        (self._action,) = actions

    def receive(self) -> list[Outcome]:
        """See :class:`Environments`."""
        assert self._action is not None, "send() comes before receive()"
        observation, reward, terminated, truncated, info = self.environment.step(self._action)
        return [(observation, float(reward), terminated, truncated, info)]

    def close(self) -> None:
        """See :class:`Environments`."""
        self.environment.close()


class WorkerEnvironments:
    """``count`` environments in worker processes: :meth:`send` actions, do other work, :meth:`receive` the outcomes.

    Observations are returned through shared memory. The workers are spawned, not forked, because a child forked from a
    process that has rendered hangs. (If this process is killed, its workers print an error and end.)

    Args:
        make: makes one environment, in the worker; cloudpickle must be able to serialize it.
        count: number of environments.
        step_timeout: seconds that a reset, a step, or each replayed step may take; None: any time. The construction
            may take a minute longer, which includes the start of the process.

    Raises:
        EnvironmentFault: an environment raised an exception, could not be made, or took longer than ``step_timeout``;
            a FloatingPointError stays one.
        RuntimeError: a process died.
    """

    def __init__(self, make: Callable[[], Environment], count: int = 1, *, step_timeout: float | None = None) -> None:
        limit = None if step_timeout is None else step_timeout + _TO_CONSTRUCT
        makers = [functools.partial(_make_in_worker, make, number, os.getpid(), limit) for number in range(count)]
        with _reporting_dead_workers(), _new_processes_ended_after(limit):
            # No automatic reset: begin() starts every episode, with its own seed.
            self._vector = AsyncVectorEnv(
                makers, context="spawn", autoreset_mode=AutoresetMode.DISABLED, worker=_worker
            )
        self.count, self._step_timeout = count, step_timeout
        self.observation_space = self._vector.single_observation_space
        self.action_space = self._vector.single_action_space
        self.metadata = {name: value for name, value in self._vector.metadata.items() if name != "autoreset_mode"}

    @property
    def max_episode_steps(self) -> int | None:
        """The environment's own limit on the agent steps of an episode, if it states one."""
        with _reporting_dead_workers():
            limit: int | None = self._vector.get_attr("max_episode_steps")[0]
        return limit

    def begin(self, episodes: Mapping[int, Beginning]) -> dict[int, Observation | None]:
        """See :class:`Environments`."""
        if not episodes:
            return {}
        seeds = [episodes[number].seed if number in episodes else None for number in range(self.count)]
        chosen = np.array([number in episodes for number in range(self.count)])
        actions = {number: list(beginning.actions) for number, beginning in episodes.items()}
        longest = max(map(len, actions.values()))
        with _reporting_dead_workers(), self._waiting("reset()", 1 + longest) as seconds:
            self._vector.reset_async(seed=seeds, options={"reset_mask": chosen, _ACTIONS: actions})
            observations, infos = self._vector.reset_wait(timeout=seconds)
        return {number: None if _only(infos, number)[_OVER] else _row(observations, number) for number in episodes}

    def send(self, actions: Action) -> None:
        """See :class:`Environments`."""
        with _reporting_dead_workers():
            self._vector.step_async(actions)

    def receive(self) -> list[Outcome]:
        """See :class:`Environments`."""
        with _reporting_dead_workers(), self._waiting("step()", 1) as seconds:
            observations, rewards, terminated, truncated, infos = self._vector.step_wait(timeout=seconds)
        return [
            (_row(observations, n), float(rewards[n]), bool(terminated[n]), bool(truncated[n]), _only(infos, n))
            for n in range(self.count)
        ]

    def close(self) -> None:
        """Ends the processes, aborting a step in progress."""
        if self._vector.closed:
            return
        self._kill()
        # Otherwise gymnasium would wait for the result of the step in progress, even from a dead process.
        self._vector._state = AsyncState.DEFAULT
        self._vector.close(terminate=True)

    @contextlib.contextmanager
    def _waiting(self, method: str, calls: int) -> Iterator[float | None]:
        """Limits the wait for as many calls of each environment to the seconds that it yields."""
        seconds = None if self._step_timeout is None else calls * self._step_timeout
        try:
            with waiting_for(f"the environment's {method}"):
                yield seconds
        except multiprocessing.TimeoutError:
            late = [str(number) for number, pipe in enumerate(self._vector.parent_pipes) if not pipe.poll(0)]
            self._kill()
            raise EnvironmentFault(
                f"{method} of environment {', '.join(late) or '0'} did not return within {seconds:g} s "
                "(training.step_timeout), so its process was ended"
            ) from None

    def _kill(self) -> None:
        for process in self._vector.processes:
            process.kill()  # workers ignore SIGTERM


class WorkerEnvironment(gymnasium.Env[Observation, Action]):
    """One environment in a worker process, for those who play it by itself.

    Args:
        make: as in :class:`WorkerEnvironments`, whose exceptions it raises.
        step_timeout: likewise.
    """

    def __init__(self, make: Callable[[], Environment], step_timeout: float) -> None:
        self._environments = WorkerEnvironments(make, step_timeout=step_timeout)
        self.observation_space = self._environments.observation_space
        self.action_space = self._environments.action_space
        self.metadata = self._environments.metadata
        self.max_episode_steps = self._environments.max_episode_steps
        """Agent steps in an episode that runs to its time limit; None if there is no limit."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts an episode; without a seed, with a random one."""
        super().reset(seed=seed)
        chosen = int(self.np_random.integers(2**31)) if seed is None else seed
        observation = self._environments.begin({0: Beginning(chosen)})[0]
        assert observation is not None, "an episode without actions cannot be over"
        return observation, {}

    def step(self, action: Action) -> Outcome:
        """Takes a step."""
        self._environments.send(action[None])
        return self._environments.receive()[0]

    def close(self) -> None:
        """Ends the process."""
        self._environments.close()


def _begin(environment: Environment, beginning: Beginning) -> tuple[Observation | None, dict[str, Any]]:
    """Resets and replays the actions. Returns the observation, or None if the episode ended early; and reset's info."""
    over = False
    observation, info = environment.reset(seed=beginning.seed)
    for action in beginning.actions:
        if over:
            return None, info
        observation, _, terminated, truncated, _ = environment.step(action)
        over = terminated or truncated
    return None if over else observation, info


_ACTIONS, _OVER = "curl_rl/actions", "curl_rl/over"


class _Beginner(gymnasium.Wrapper[Observation, Action, Observation, Action]):
    """Replays an episode's actions as part of its reset, in the worker, so that several environments do so at once."""

    def __init__(self, environment: Environment, number: int) -> None:
        super().__init__(environment)
        self._number = number
        self.max_episode_steps = getattr(environment, "max_episode_steps", None)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        assert seed is not None, "only begin() resets"
        assert options is not None, "only begin() resets"
        with _picklable_errors():
            observation, info = _begin(self.env, Beginning(seed, options[_ACTIONS][self._number]))
        if observation is None:
            return _row(create_empty_array(self.observation_space), 0), {**info, _OVER: True}
        return observation, {**info, _OVER: False}

    def step(self, action: Action) -> Outcome:
        with _picklable_errors():
            return self.env.step(action)  # type: ignore[return-value]  # contained


def _make_in_worker(
    make: Callable[[], Environment], number: int, trainer: int, time_limit: float | None = None
) -> Environment:
    """Makes an environment in a worker, which ignores SIGINT and SIGTERM: only the trainer handles them.

    gymnasium also calls this in the trainer, to inspect the spaces; the ``time_limit`` in seconds applies to either.
    """
    if os.getpid() != trainer:
        for number_of_signal in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number_of_signal, signal.SIG_IGN)
    with _picklable_errors():
        return _Beginner(contained(make, time_limit=time_limit), number)


def _worker(
    number: int,
    make: Callable[[], Environment],
    pipe: Any,
    parent_pipe: Any,
    memory: Any,
    faults: Any,
    *more: Any,
    **named: Any,
) -> None:
    """gymnasium's worker, extended to report why an environment could not be made."""
    # The parent closes all pipes if one worker cannot make its environment.
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            environment = make()
        except (EnvironmentFault, FloatingPointError) as fault:
            parent_pipe.close()
            faults.put((number, type(fault), str(fault), f"environment {number} could not be made"))
            pipe.recv()  # the first request, for its spaces
            pipe.send((None, False))
            return
        _async_worker(number, lambda: environment, pipe, parent_pipe, memory, faults, *more, **named)


@contextlib.contextmanager
def _picklable_errors() -> Iterator[None]:
    """In a worker, converts exceptions to classes that the trainer can unpickle; user-defined ones may fail to."""
    try:
        yield
    except EnvironmentFault:
        raise
    except UserError as error:
        raise EnvironmentFault(str(error)) from None
    except Exception as error:
        if multiprocessing.parent_process() is None:
            raise
        traceback.print_exc()
        if isinstance(error, FloatingPointError):
            raise FloatingPointError(str(error)) from None
        raise EnvironmentFault(f"{type(error).__name__}: {error}") from None


def _row(observations: Any, number: int) -> Observation:
    """The observation of one environment, from an array or a dict of arrays with a row for each."""
    row: Observation
    if isinstance(observations, dict):
        row = {name: values[number] for name, values in observations.items()}
    else:
        row = observations[number]
    return row


def _only(infos: dict[str, Any], number: int) -> dict[str, Any]:
    """The info of one environment, from gymnasium's arrays and their masks of environments that set the entry."""
    return {
        name: _only(values, number) if isinstance(values, dict) else values[number]
        for name, values in infos.items()
        if not name.startswith("_") and _has(infos, name, number)
    }


def _has(infos: dict[str, Any], name: str, number: int) -> bool:
    mask = infos.get(f"_{name}")
    return mask is None or bool(mask[number])


@contextlib.contextmanager
def _new_processes_ended_after(seconds: float | None) -> Iterator[None]:
    """Ends the processes that were started inside the block if it takes longer; None: never.

    Raises:
        EnvironmentFault: they were ended.
    """
    if seconds is None:
        yield
        return
    earlier, done, ended = multiprocessing.active_children(), threading.Event(), threading.Event()

    def end() -> None:
        if done.wait(seconds):
            return
        ended.set()
        while not done.wait(0.1):  # some may be started only now
            for process in multiprocessing.active_children():
                if process not in earlier:
                    process.kill()

    threading.Thread(target=end, daemon=True).start()
    try:
        yield
    except (EOFError, BrokenPipeError, ConnectionResetError):
        if not ended.is_set():
            raise
        raise EnvironmentFault(
            f"construction of the environment took more than {seconds:g} s (training.step_timeout and "
            f"{_TO_CONSTRUCT:g} s), so its process was ended"
        ) from None
    finally:
        done.set()


@contextlib.contextmanager
def _reporting_dead_workers() -> Iterator[None]:
    try:
        yield
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise RuntimeError("the environment's process died") from None


@contextlib.contextmanager
def open_environments(
    make: Callable[[], Environment], count: int, *, overlap: bool, step_timeout: float | None = None
) -> Iterator[Environments]:
    """Opens one environment in this process or, with several, ``overlap`` or ``step_timeout``, each in a worker; closes
    them at the end.

    Raises:
        EnvironmentFault: an environment could not be made in its process.
    """
    environments: Environments
    if overlap or count > 1 or step_timeout is not None:
        environments = WorkerEnvironments(make, count, step_timeout=step_timeout)
    else:
        environments = LocalEnvironment(contained(make))
    try:
        yield environments
    finally:
        environments.close()


def pixel_spaces(environment: Environment | Environments) -> tuple[tuple[int, int, int], int]:
    """``(C, H, W)`` of the observations and the size of the actions.

    Raises:
        UserError: the observations are not uint8 pixels, or the actions are not a vector in [-1, 1].
    """
    actions = environment.action_space
    shape = observation_spec(environment.observation_space).shape
    if not isinstance(actions, gymnasium.spaces.Box) or len(actions.shape) != 1:
        raise UserError(f"the environment's actions must be vectors of real numbers, got {actions}")
    if not (np.all(actions.low == -1) and np.all(actions.high == 1)):
        raise UserError(f"the environment's actions must be in [-1, 1], got {actions}")
    return shape, actions.shape[0]
