"""An episode of random actions, recorded step by step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from curl_rl.rl.workers import Action, Environment, pixel_spaces

_HANDED_OUT = 20  # observations that are kept as returned, in addition to their copies


class Step(NamedTuple):
    """The result of ``step``, with a copy of the observation."""

    observation: Any
    reward: Any
    terminated: Any
    truncated: Any
    info: Any


class Rollout:
    """The beginning of an episode, its steps, and the actions that led to them."""

    def __init__(self, environment: Any, first: Any) -> None:
        self.observation_space = environment.observation_space
        self.max_episode_steps = _limit(environment)
        self.first: Any = _copy(first)
        self.steps: list[Step] = []
        self.actions: list[Action] = []
        self.handed_out: list[tuple[str, Any, Any]] = [("reset", first, self.first)]
        """The origin of an observation, the object itself, and a copy made when it was returned."""
        self.wrote_into_an_action = False

    def add(self, outcome: Any) -> None:
        """Records the result of a step."""
        observation, *rest = outcome
        self.steps.append(Step(_copy(observation), *rest))
        if len(self.handed_out) < _HANDED_OUT:
            self.handed_out.append((f"step {len(self.steps)}", observation, self.steps[-1].observation))

    @property
    def over(self) -> bool:
        """True once the episode has ended."""
        return bool(self.steps and (self.steps[-1].terminated or self.steps[-1].truncated))

    def observations(self) -> Iterator[tuple[str, Any]]:
        """The origin of each observation, and a copy of it."""
        yield "reset", self.first
        for number, step in enumerate(self.steps, 1):
            yield f"step {number}", step.observation

    def difference(self, other: Rollout, number: int) -> str | None:
        """The difference of ``other`` in step ``number`` (0: reset), in words; None if there is none."""
        if not number:
            return None if equal_observations(self.first, other.first) else "a different first observation"
        ours, theirs = self.steps[number - 1], other.steps[number - 1]
        agrees = {
            "observation": equal_observations(ours.observation, theirs.observation),
            "reward": bool(ours.reward == theirs.reward),
            "end": (ours.terminated, ours.truncated) == (theirs.terminated, theirs.truncated),
        }
        return next((f"a different {part} in step {number}" for part, agreed in agrees.items() if not agreed), None)


def play(environment: Environment, seed: int, steps: int) -> Rollout:
    """Plays uniform actions drawn from the seed until the episode ends, or for ``max_episode_steps`` or ``steps``."""
    generator, (_, action_dim) = np.random.default_rng(seed), pixel_spaces(environment)
    first, _ = environment.reset(seed=seed)
    rollout = Rollout(environment, first)
    for _ in range(min(steps, rollout.max_episode_steps or steps)):
        action = generator.uniform(-1, 1, action_dim).astype(np.float32)
        rollout.actions.append(action)
        given = action.copy()
        rollout.add(environment.step(given))
        rollout.wrote_into_an_action |= not np.array_equal(given, action)
        if rollout.over:
            break
    return rollout


def equal_observations(one: Any, other: Any) -> bool:
    """Tests whether two observations, arrays or dicts of arrays, hold the same numbers."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal_observations(one[name], other[name]) for name in one)
    return not isinstance(one, dict) and not isinstance(other, dict) and np.array_equal(one, other)


def _limit(environment: Any) -> int | None:
    """Agent steps after which an episode is truncated, if the environment or gymnasium's registry defines it."""
    limit: int | None = getattr(environment, "max_episode_steps", None)
    spec = getattr(environment, "spec", None)
    return limit if limit is not None else getattr(spec, "max_episode_steps", None)


def _copy(observation: Any) -> Any:
    if isinstance(observation, dict):
        return {name: _copy(entry) for name, entry in observation.items()}
    return np.array(observation) if isinstance(observation, np.ndarray) else observation
