"""Environments are user code: this wrapper checks what they return, and contains what they do to the process."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from curl_rl.runs.console import say
from curl_rl.runs.errors import UserError, one_line
from curl_rl.runs.signals import handlers_kept, interrupts, waiting_for

Observation = Any
"""Pixels, or a dict of pixels and vectors; see ``observations``."""
Action = npt.NDArray[np.float32]
Environment = gymnasium.Env[Observation, Action]
Outcome = tuple[Observation, float, bool, bool, dict[str, Any]]

_PATIENCE = 10.0  # seconds after which a close() that has not returned is reported
_LAST_PATIENCE = 60.0  # and after which it is interrupted


class EnvironmentFault(RuntimeError):
    """What an environment did wrong, as text: an exception's own class may be unknown in this process."""


class _TooLong(BaseException):
    """Interrupts a call into an environment, which may catch every Exception."""


class ContainedEnvironment(gymnasium.Wrapper[Observation, Action, Observation, Action]):
    """An environment that can neither end nor redirect the process it runs in. Made by :func:`contained`.

    * What ``reset`` and ``step`` return is checked, so that a defect is reported where it arises.
    * ``sys.exit``, a KeyboardInterrupt that no signal caused, and a StopIteration, each of which would end a loop or a
      program without a word, become an :class:`EnvironmentFault`. Other exceptions pass.
    * The environment has a working directory of its own. Wherever it goes, relative paths of the run stay what they
      are, and so do the environment's own.
    * Handlers of SIGINT and SIGTERM that it installs are removed when the call returns.
    * ``close`` does not raise, since a run is complete by then.

    Other attributes are those of the environment. Its use of global random generators needs no containment: a run draws
    from its own.
    """

    def __init__(self, environment: Environment, calls: _Calls) -> None:
        super().__init__(environment)
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.env, name)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Resets the environment.

        Raises:
            UserError: it does not return what it should.
            EnvironmentFault: it tried to end the process.
        """
        with self._calls.to("reset()"):
            beginning: Any = self.env.reset(seed=seed, options=options)
        if not isinstance(beginning, tuple) or len(beginning) != 2:
            raise UserError(f"the environment's reset must return (observation, info), got {_kind(beginning)}")
        check_observation(beginning[0], self.observation_space)
        return beginning

    def step(self, action: Action) -> Outcome:
        """Steps the environment; errors as :meth:`reset`."""
        with self._calls.to("step()"):
            outcome: Any = self.env.step(action)
        return checked_outcome(outcome, self.observation_space)

    def render(self) -> Any:
        """Renders the environment; errors as :meth:`reset`."""
        with self._calls.to("render()"):
            return self.env.render()

    def close(self) -> None:
        """Closes the environment. If that fails, or takes long, says so; a minute later goes on without it."""
        waiting = (
            "waiting for the environment's close(), after which nothing remains to be done; Ctrl-C ends it, or it is "
            f"interrupted after {_LAST_PATIENCE:g} s"
        )
        late = threading.Timer(_PATIENCE, say, [waiting])
        late.daemon = True
        late.start()
        try:
            with self._calls.to("close()"), _interrupted_after(_LAST_PATIENCE, "close()"):
                self.env.close()
        except Exception as error:
            say(f"the environment's close() failed, which changes nothing that was saved: {_named(error)}")
        finally:
            late.cancel()


def contained(make: Callable[[], Environment], *, time_limit: float | None = None) -> ContainedEnvironment:
    """Makes an environment and contains it, from its construction on.

    Args:
        make: makes it.
        time_limit: seconds that this may take; None: any time.

    Raises:
        EnvironmentFault: ``make`` tried to end the process, took too long, or returned something else than an
            environment.
    """
    calls = _Calls()
    with calls.to("construction"), _interrupted_after(time_limit, "construction"):
        environment: Any = make()
    if not isinstance(environment, gymnasium.Env):
        raise EnvironmentFault(f"make_environment must return a gymnasium.Env, got {_kind(environment)}")
    return ContainedEnvironment(environment, calls)


@contextlib.contextmanager
def _interrupted_after(seconds: float | None, method: str) -> Iterator[None]:
    """Interrupts a call into an environment once it has taken ``seconds``; None: never.

    What waits inside a library without returning to Python is interrupted when it does. Outside the main thread, and
    while another alarm is set, nothing is interrupted.

    Raises:
        EnvironmentFault: the block was interrupted.
    """
    in_use = signal.getitimer(signal.ITIMER_REAL)[0] > 0
    if seconds is None or in_use or threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except _TooLong:
        raise EnvironmentFault(
            f"the environment's {method} had not returned after {seconds:g} s, and was interrupted"
        ) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def check_observation(observation: Any, space: gymnasium.Space[Any]) -> None:
    """Refuses an observation that is not what ``space``, of pixels or a dict of pixels and vectors, declares.

    Raises:
        UserError: it is no array or dict, or an array has another type or shape.
    """
    entries = [("observation", observation, space)]
    if isinstance(space, gymnasium.spaces.Dict):
        if not isinstance(observation, dict) or observation.keys() != space.spaces.keys():
            found = sorted(observation) if isinstance(observation, dict) else type(observation).__name__
            raise UserError(f"the environment's observation must hold {sorted(space.spaces)}, got {found}")
        entries = [(f"observation's {name}", observation[name], entry) for name, entry in space.spaces.items()]
    for name, value, entry in entries:
        if not isinstance(value, np.ndarray) or (value.dtype, value.shape) != (entry.dtype, entry.shape):
            kind = f"{getattr(value, 'dtype', type(value).__name__)} {np.shape(value)}"
            raise UserError(f"the environment's {name} must be {entry.dtype} {entry.shape}, got {kind}")


def checked_outcome(outcome: Any, space: gymnasium.Space[Any]) -> Outcome:
    """What ``step`` returned, with a reward and flags of Python's types.

    Whether the reward is finite is left to those who store or sum it.

    Raises:
        UserError: it is not ``(observation, reward, terminated, truncated, info)``, or ``info["environment_steps"]`` is
            not a whole number of at least 1.
    """
    if not isinstance(outcome, tuple) or len(outcome) != 5:
        wanted = "(observation, reward, terminated, truncated, info)"
        raise UserError(f"the environment's step must return {wanted}, got {_kind(outcome)}")
    observation, reward, terminated, truncated, info = outcome
    check_observation(observation, space)
    number = np.asarray(reward)
    if number.size != 1 or number.dtype.kind not in "biuf":
        raise UserError(f"the environment's reward must be a number, got {_kind(reward)}")
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        if not isinstance(flag, (bool, np.bool_)) and not (np.ndim(flag) == 0 and flag in (0, 1)):
            raise UserError(f"the environment's {name} must be true or false, got {_kind(flag)}")
    if not isinstance(info, Mapping):
        raise UserError(f"the environment's info must be a dict, got {_kind(info)}")
    steps = info.get("environment_steps", 1)
    whole = isinstance(steps, (int, float, np.number)) and not isinstance(steps, bool)
    if not whole or not (steps >= 1 and float(steps).is_integer()):
        raise UserError(
            f'the environment\'s info["environment_steps"] must be a whole number of at least 1, got {steps!r}'
        )
    return observation, float(number.item()), bool(terminated), bool(truncated), dict(info)


class _Calls:
    """The calls into one environment, and the working directory that it has between them."""

    def __init__(self) -> None:
        self._directory: str | None = None

    def to(self, method: str) -> _Call:
        """Contains one call; ``method`` is its name in messages."""
        return _Call(method, self._own_directory())

    @contextlib.contextmanager
    def _own_directory(self) -> Iterator[None]:
        try:
            ours = os.getcwd()
        except OSError:  # deleted meanwhile, which an environment may not care about
            yield
            return
        if self._directory is not None:
            os.chdir(self._directory)
        try:
            yield
        finally:
            try:
                theirs = os.getcwd()
            except OSError:  # the environment has deleted it
                theirs = ours
                os.chdir(ours)
            self._directory = theirs if theirs != ours else None
            if self._directory is not None:
                os.chdir(ours)


class _Call(contextlib.AbstractContextManager[None]):
    """A call into an environment, whose attempts to end the loop or the program become an :class:`EnvironmentFault`.

    A class, since a generator could not tell a StopIteration from its own end.
    """

    def __init__(self, method: str, own_directory: contextlib.AbstractContextManager[None]) -> None:
        self._method, self._own_directory = method, own_directory

    def __enter__(self) -> None:
        self._handler = signal.getsignal(signal.SIGINT)
        with contextlib.ExitStack() as entered:
            entered.enter_context(waiting_for(f"the environment's {self._method}"))
            entered.enter_context(handlers_kept())
            entered.enter_context(self._own_directory)
            self._entered = entered.pop_all()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered.close()
        ends_loops = isinstance(error, (StopIteration, StopAsyncIteration))
        if error is None or (isinstance(error, Exception) and not ends_loops):
            return
        # In a run's loop Ctrl-C raises nothing until it comes a second time.
        if isinstance(error, KeyboardInterrupt) and interrupts(self._handler):
            return
        did = f"called sys.exit({error.code!r})" if isinstance(error, SystemExit) else f"raised {_named(error)}"
        raise EnvironmentFault(f"the environment's {self._method} {did}") from error


def _named(error: BaseException) -> str:
    name = type(error).__name__
    return f"{name}: {one_line(error)}" if str(error) else name


def _kind(value: Any) -> str:
    if isinstance(value, tuple):
        return f"{len(value)} values"
    return "None" if value is None else f"a {type(value).__name__}"
