"""Estimates a run's duration on this machine before it starts."""

from __future__ import annotations

import copy
import math
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import gymnasium
import torch

from curl_rl.rl.agent import Agent, Due
from curl_rl.rl.config import RunConfig
from curl_rl.rl.observations import observation_spec
from curl_rl.rl.replay import Batch

_LONG = 4 * 3600.0  # seconds above which to suggest another preset


def estimated_time(
    config: RunConfig,
    agent: Agent,
    environment: gymnasium.Env[Any, Any],
    frames: int,
    steps_done: int = 0,
) -> str:
    """Estimates the time for ``frames`` environment frames from a few timed updates and steps on the CPU, in one line.

    Args:
        config: the run's configuration.
        agent: copied for timing, not changed.
        environment: stepped a few times, so it must not be a training environment.
        frames: remaining environment frames.
        steps_done: agent steps already taken; a run's first ``training.random_steps`` have no update.
    """
    per_update, per_step = _seconds_per_update(config, agent), _seconds_per_step(agent, environment)
    steps = frames / config.environment.action_repeat
    random_steps_left = max(config.training.random_steps - steps_done, 0)
    updates = max(steps - random_steps_left, 0) / config.training.update_every
    every, episodes = config.evaluation.every, config.evaluation.episodes
    evaluations = frames // every + 1 if every else 0
    # The suite's episodes last 1000 environment steps; max_episode_steps takes precedence.
    episode_steps = getattr(environment, "max_episode_steps", None) or 1000 / config.environment.action_repeat
    seconds = steps * per_step + updates * per_update
    seconds += evaluations * episodes * episode_steps * per_step
    measured = f"{per_update * 1e3:.0f} ms per update, {per_step * 1e3:.0f} ms per step"
    line = f"estimate: {_duration(seconds)} on this CPU ({measured})"
    if seconds > _LONG and config.preset != "cpu":
        line += "; use --preset cpu on CPUs, or run this preset on a GPU"
    return line


def _seconds_per_update(config: RunConfig, agent: Agent) -> float:
    trained = copy.deepcopy(agent)
    size = config.agent.batch_size
    channels = agent.encoder.observation_shape[0]
    observation = torch.zeros((size, channels, config.environment.size, config.environment.size), dtype=torch.uint8)
    column = torch.zeros(size, 1)
    offsets = trained.future_offsets
    beside = torch.zeros(size, agent.proprioception) if agent.proprioception else None
    batch = Batch(
        observation,
        column.expand(-1, agent.action_dim),
        column,
        column,
        observation,
        future=tuple(observation for _ in offsets),
        actions_ahead=torch.zeros(size, max(offsets), agent.action_dim) if offsets else None,
        proprioception=beside,
        next_proprioception=beside,
    )
    generator = torch.Generator().manual_seed(0)
    c = config.agent
    # The kinds of update repeat with this period; of a long one, the first thousand updates are representative.
    period = min(math.lcm(c.actor_every, c.target_every, c.objective_every), 1000)
    kinds: Counter[Due] = Counter()
    first_of_kind: dict[Due, int] = {}
    for trained.updates in range(period):
        kinds[trained.due] += 1
        first_of_kind.setdefault(trained.due, trained.updates)
    seconds = 0.0
    for due, number in first_of_kind.items():
        # The first of each kind, a warm-up, creates optimizer state and touches memory for the first time.
        for turn in range(2):
            trained.updates = number
            elapsed = _seconds(lambda: trained.update(trained.draw(batch, generator)))
            seconds += elapsed * kinds[due] * turn
    return seconds / period


def _seconds_per_step(agent: Agent, environment: gymnasium.Env[Any, Any]) -> float:
    first, _ = environment.reset(seed=0)
    noise, spec = torch.zeros(1, agent.action_dim), observation_spec(environment.observation_space)
    pixels, proprioception = spec.batch_of_one(first, noise.device)

    def step() -> None:
        _, _, terminated, truncated, _ = environment.step(agent.act(pixels, noise, proprioception)[0].numpy())
        if terminated or truncated:
            environment.reset()

    return min(_seconds(step) for _ in range(10))


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"about {seconds:.0f} seconds"
    return f"about {seconds / 60:.0f} minutes" if seconds < 7200 else f"about {seconds / 3600:.0f} hours"
