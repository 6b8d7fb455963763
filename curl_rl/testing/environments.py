"""The conformance test of environments: checks of everything that the training loop requires.

See :mod:`curl_rl.rl.workers` for how the loop uses an environment, and :mod:`curl_rl.rl.episode_stream` for the
assumptions of the replay.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any

import gymnasium
import numpy as np

from curl_rl.rl.observations import observation_spec
from curl_rl.rl.workers import Beginning, Environment, WorkerEnvironments, pixel_spaces
from curl_rl.runs.errors import UserError, one_line
from curl_rl.testing.failures import CheckWarning, fail, require, run_checks
from curl_rl.testing.rollout import Rollout, equal_observations, play

_BOOLEANS = (bool, np.bool_)
_NUMBERS = (int, float, np.integer, np.floating)
_COMPARED = 50  # agent steps that are played several times


class EnvironmentCase:
    """A factory under test, and an episode played by one of its environments."""

    def __init__(self, make: Callable[[], Environment], stack: int, steps: int, seed: int) -> None:
        self.make, self.stack, self.steps, self.seed = make, stack, steps, seed

    @functools.cached_property
    def rollout(self) -> Rollout:
        """An episode in an environment of its own, played when a check first needs it."""
        with closing(self.make()) as environment:
            return play(environment, self.seed, self.steps)


def environments(case: EnvironmentCase) -> None:
    """``make`` returns a gymnasium environment, a new one on every call."""
    one = case.make()
    require(
        isinstance(one, gymnasium.Env),
        f"make returns {type(one).__name__}, which is not a gymnasium.Env",
        "Derive its class from gymnasium.Env.",
    )
    with closing(one):
        other = case.make()
        require(
            one is not other,
            "make returns the same environment on every call",
            "Build it inside make: training and evaluation use one each.",
        )
        other.close()


def spaces(case: EnvironmentCase) -> None:
    """Observations are uint8 ``(stack·C, H, W)``, or a dict of these and vectors; actions a vector in [-1, 1]."""
    with closing(case.make()) as environment:
        try:
            (channels, height, width), _ = pixel_spaces(environment)
        except UserError as error:
            fail(
                one_line(error),
                "Leave scaling to the encoder, move channels to the front, and rescale actions with "
                "gymnasium.wrappers.RescaleAction(env, -1, 1).",
            )
    require(
        width > 4 or height <= 4,
        f"observations {(channels, height, width)} seem to have their channels last",
        "Move them to the front: np.moveaxis(frame, -1, 0).",
    )
    require(
        channels % case.stack == 0,
        f"{channels} channels are not a stack of {case.stack} frames",
        "Pass check_environment(..., stack=...), the same as --environment.stack.",
    )


def reset_and_step(case: EnvironmentCase) -> None:
    """``reset(seed=..., options=...)`` returns observation and info; ``step(action)`` returns five values."""
    with closing(case.make()) as environment:
        try:
            beginning = environment.reset(seed=case.seed, options={})
        except TypeError as error:
            fail(
                f"reset(seed=..., options=...) fails: {one_line(error)}",
                "Declare it as def reset(self, *, seed=None, options=None).",
                error,
            )
        require(
            isinstance(beginning, tuple) and len(beginning) == 2,
            f"reset returns {_kind(beginning)}",
            "Return (observation, info).",
        )
        _require_info("reset", beginning[1])
        _, action_dim = pixel_spaces(environment)
        outcome = environment.step(np.zeros(action_dim, np.float32))
        require(
            isinstance(outcome, tuple) and len(outcome) == 5,
            f"step returns {_kind(outcome)}",
            "Return (observation, reward, terminated, truncated, info).",
        )


def rewards(case: EnvironmentCase) -> None:
    """Rewards are finite numbers."""
    for number, step in enumerate(case.rollout.steps, 1):
        require(
            isinstance(step.reward, _NUMBERS),
            f"the reward of step {number} is {_kind(step.reward)}",
            "Return float(reward).",
        )
        require(
            abs(step.reward) <= np.finfo(np.float32).max,  # false for NaN, too
            f"the reward of step {number} is {step.reward}",
            "Return a number that is finite in float32.",
        )


def ends(case: EnvironmentCase) -> None:
    """``terminated`` and ``truncated`` are booleans."""
    for number, step in enumerate(case.rollout.steps, 1):
        for name, value in (("terminated", step.terminated), ("truncated", step.truncated)):
            require(isinstance(value, _BOOLEANS), f"{name} of step {number} is {_kind(value)}", f"Return bool({name}).")


def infos(case: EnvironmentCase) -> None:
    """``info`` is a dict, in which ``environment_steps``, if present, is an integer of at least 1."""
    for number, step in enumerate(case.rollout.steps, 1):
        _require_info(f"step {number}", step.info)
        taken = step.info.get("environment_steps", 1)
        whole = isinstance(taken, (int, np.integer)) and not isinstance(taken, bool)
        require(
            whole and taken >= 1,
            f'info["environment_steps"] of step {number} is {taken!r}',
            "Return the number of simulator steps that the action took, at least 1: a run's budget counts them.",
        )


def observations(case: EnvironmentCase) -> None:
    """Observations are arrays of the type and shape that the space declares, with values inside it."""
    space = case.rollout.observation_space
    for where, observation in case.rollout.observations():
        if not isinstance(space, gymnasium.spaces.Dict):
            _require_pixels(f"the observation of {where}", observation, space)
            continue
        found = sorted(observation) if isinstance(observation, dict) else _kind(observation)
        require(
            found == sorted(space.spaces),
            f"the observation of {where} is {found}, but the space has {sorted(space.spaces)}",
            "Return a dict with these entries.",
        )
        for name, entry in space.spaces.items():
            what, value = f"{name} in the observation of {where}", observation[name]
            if name == observation_spec(space).image:
                _require_pixels(what, value, entry)
                continue
            require(
                isinstance(value, np.ndarray) and (value.dtype, value.shape) == (entry.dtype, entry.shape),
                f"{what} is {_kind(value)}, but the space has {entry.dtype}, shape {entry.shape}",
                "Return an array of this type and shape.",
            )
            require(
                bool(np.isfinite(value).all()) and entry.contains(value),
                f"{what} is {value.tolist()}, which is not finite or outside the space",
                "Declare it as Box(-np.inf, np.inf, shape, np.float32), and return finite numbers.",
            )


def _require_pixels(what: str, pixels: Any, space: gymnasium.Space[Any]) -> None:
    require(
        isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8,
        f"{what} is {_kind(pixels)}",
        "Return a NumPy array of uint8, in [0, 255].",
    )
    require(
        pixels.shape == space.shape,
        f"{what} has shape {pixels.shape}, but the space has {space.shape}",
        "Make them agree: channels first, stacked frames concatenated along the channels.",
    )
    require(
        space.contains(pixels),
        f"{what} is outside the space {space}",
        "Declare it as Box(0, 255, shape, np.uint8).",
    )


def frame_stack(case: EnvironmentCase) -> None:
    """An episode starts with its first frame ``stack`` times, and each step appends one frame."""
    stack, (first, *later) = case.stack, _pixels(case)
    frames = first.reshape(stack, -1)
    require(
        (frames == frames[0]).all(),
        f"reset's observation is not one frame {stack} times",
        "Fill the stack with the episode's first frame, from which the replay rebuilds the first observations; or pass "
        "the environment's own stack=....",
    )
    channels, before = len(first) // stack, first
    for number, observation in enumerate(later, 1):
        require(
            np.array_equal(observation[:-channels], before[channels:]),
            f"the observation of step {number} is not the previous one shifted by one frame of {channels} channels",
            "Append one frame per step and drop the oldest, which comes first: the replay stores only the newest.",
        )
        before = observation


def kept_arrays(case: EnvironmentCase) -> None:
    """The environment never writes to observations that it has returned, nor to actions."""
    for where, handed_out, copy in case.rollout.handed_out:
        require(
            equal_observations(handed_out, copy),
            f"the observation of {where} was changed by a later step",
            "Return a new array every time, such as np.concatenate(frames) or buffer.copy().",
        )
    require(
        not case.rollout.wrote_into_an_action,
        "step writes into the action that is passed to it",
        "Compute a new array from it: the replay stores the array that was passed.",
    )


def seeding(case: EnvironmentCase) -> None:
    """The same seed and actions give the same episode: in a new environment, after another episode, side by side."""
    remedy = (
        "Draw every random number from self.np_random, which super().reset(seed=seed) seeds, and keep no state from "
        "episode to episode or in the class: a resumed run replays the unfinished episode."
    )
    expected, count = case.rollout, min(_COMPARED, len(case.rollout.steps))
    with closing(case.make()) as one, closing(case.make()) as other:
        play(one, case.seed + 1, count)  # an earlier episode must leave no trace
        both = [play(environment, case.seed, 0) for environment in (one, other)]
        for number in range(count + 1):
            for environment, rollout, which in zip((one, other), both, ("used", "new"), strict=True):
                if number:
                    rollout.add(environment.step(expected.actions[number - 1]))
                difference = expected.difference(rollout, number)
                require(
                    difference is None,
                    f"in a {which} environment the same seed and actions give {difference}",
                    remedy,
                )


def picture(case: EnvironmentCase) -> None:
    """Warns if the picture never changes."""
    first, *later = _pixels(case)
    if later and all(np.array_equal(first, observation) for observation in later):
        warnings.warn(
            f"the picture is the same in all {len(later)} random steps: does the environment draw its state?",
            CheckWarning,
            stacklevel=2,
        )


def episodes_end(case: EnvironmentCase) -> None:
    """An episode ends within the environment's ``max_episode_steps``, or else within the ``steps`` of the check."""
    rollout = case.rollout
    limit = rollout.max_episode_steps
    require(
        rollout.over or limit is None or len(rollout.steps) < limit,
        f"max_episode_steps is {limit}, but an episode has not ended by then",
        "Return truncated = True in that step: the replay is sized for episodes of that length.",
    )
    require(
        rollout.over or limit is not None,
        f"an episode of random actions has not ended after {len(rollout.steps)} steps",
        "Evaluation plays whole episodes: wrap it in gymnasium.wrappers.TimeLimit, or pass a larger steps=....",
    )


def worker(case: EnvironmentCase) -> None:
    """In a separate process, as with ``--training.environments 2``, the environment gives the same episode."""
    expected, count = case.rollout, min(_COMPARED, len(case.rollout.steps))
    try:
        there = WorkerEnvironments(case.make)
    except Exception as error:
        fail(
            f"it cannot be made in a separate process: {type(error).__name__}: {one_line(error)}",
            "Build everything inside make, which is pickled, and call this under if __name__ == '__main__'.",
            error,
        )
    with closing(there):
        rollout = Rollout(there, there.begin({0: Beginning(case.seed)})[0])
        for action in expected.actions[:count]:
            there.send(action[None])
            rollout.add(there.receive()[0])
    for number in range(count + 1):
        difference = expected.difference(rollout, number)
        require(
            difference is None,
            f"in a separate process the same seed and actions give {difference}",
            "Depend on nothing that differs between processes: global state, hash(), the time, files.",
        )


def close(case: EnvironmentCase) -> None:
    """``close`` may be called twice."""
    environment = case.make()
    environment.reset(seed=case.seed)
    environment.close()
    try:
        environment.close()
    except Exception as error:
        fail(
            f"the second close raises {type(error).__name__}: {one_line(error)}",
            "Make close do nothing if everything is closed already.",
            error,
        )


ENVIRONMENT_CHECKS: dict[str, Callable[[EnvironmentCase], None]] = {
    check.__name__: check
    for check in (
        environments,
        spaces,
        reset_and_step,
        rewards,
        ends,
        infos,
        observations,
        frame_stack,
        kept_arrays,
        episodes_end,
        seeding,
        picture,
        close,
        worker,
    )
}
"""The checks by name, in the order in which they run."""


def check_environment(
    make: Callable[[], Environment],
    *,
    stack: int = 3,
    steps: int = 1000,
    seed: int = 0,
    checks: Iterable[str] = tuple(ENVIRONMENT_CHECKS),
) -> None:
    """Checks that the training loop can work with an environment, and reports what is wrong and how to fix it.

    About ten environments are made and closed, one after the other or two at a time, and one in a separate process,
    which imports the main program: call this from a test, or under ``if __name__ == "__main__":``.

    Args:
        make: makes one environment, as for :func:`curl_rl.rl.training.train`.
        stack: number of frames in an observation.
        steps: maximum number of agent steps to play. An episode of random actions must end within them if the
            environment has no ``max_episode_steps``.
        seed: seed of the episodes and the actions.
        checks: names from :data:`ENVIRONMENT_CHECKS`.

    Raises:
        CheckFailed: (an AssertionError) the first check that fails, with its finding and the remedy.
        ValueError: an argument is out of range.

    Warns:
        CheckWarning: the picture never changes.
    """
    for name, value in (("stack", stack), ("steps", steps)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    case = EnvironmentCase(make, stack, steps, seed)
    run_checks(ENVIRONMENT_CHECKS, checks, case, owner=lambda: _owner(make))


def _pixels(case: EnvironmentCase) -> list[Any]:
    """The frame stacks of the episode."""
    spec = observation_spec(case.rollout.observation_space)
    return [spec.pixels(observation) for _, observation in case.rollout.observations()]


def _owner(make: Callable[[], Environment]) -> str:
    """The class inside all wrappers."""
    try:
        with closing(make()) as environment:
            inside: Any = environment
            while hasattr(inside, "env"):
                inside = inside.env
            return type(inside).__name__
    except Exception:
        return "the environment"


def _require_info(who: str, info: Any) -> None:
    require(isinstance(info, dict), f"info of {who} is {_kind(info)}", "Return a dict, {} if there is no info.")


def _kind(value: Any) -> str:
    """A short description of a value, for messages."""
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype}, shape {value.shape}"
    if isinstance(value, tuple):
        return f"{len(value)} values"
    if isinstance(value, (list, dict)):
        return f"a {type(value).__name__}"
    return "None" if value is None else f"{type(value).__name__} {value}"
