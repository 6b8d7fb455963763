"""Evaluates a policy: deterministic actions, center crops, a separate environment with separate seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from curl_rl.rl.agent import Agent
from curl_rl.rl.film import Film
from curl_rl.rl.observations import observation_spec
from curl_rl.runs.console import say
from curl_rl.runs.pictures import PictureWatch
from curl_rl.runs.seeds import derived_seed

_LONG = 10_000
"""Agent steps after which an episode without a time limit is mentioned; then after ten times as many, and so on."""
_WATCHED = -1  # the number of this environment among those that are watched


@dataclass(frozen=True)
class Evaluation:
    """The results of some episodes."""

    returns: list[float]
    """Undiscounted return of each episode."""
    pictures: npt.NDArray[np.uint8] | None
    """The pictures of the first episode, ``(T, H, W, 3)``, as :mod:`~curl_rl.rl.film` draws them; None if it was not
    recorded."""
    pictures_per_second: float
    """Frame rate that plays the pictures in real time."""

    def metrics(self) -> dict[str, float]:
        """Mean, median and spread of the returns, by name."""
        return {
            "evaluation/return_mean": statistics.fmean(self.returns),
            "evaluation/return_median": statistics.median(self.returns),
            "evaluation/return_std": statistics.pstdev(self.returns),
            "evaluation/return_min": min(self.returns),
            "evaluation/return_max": max(self.returns),
        }


def evaluate(
    agent: Agent,
    env: gymnasium.Env[Any, Any],
    *,
    episodes: int,
    seed: int,
    record: bool = False,
    stop: Callable[[], bool] = lambda: False,
    after_episode: Callable[[], object] = lambda: None,
    watch: PictureWatch | None = None,
) -> Evaluation | None:
    """Plays ``episodes`` episodes with the mean action; the same seed gives the same initial states.

    Draws no random numbers itself and does not change the agent.

    Args:
        agent: the agent to evaluate.
        env: an environment other than the training environment.
        episodes: number of episodes.
        seed: the run's seed.
        record: keep the first episode's pictures.
        stop: called at every step; the evaluation is aborted once it returns True.
        after_episode: called after each episode, to show progress.
        watch: looks at the pictures; by default a new one.

    Returns:
        The evaluation, or None if it was aborted.

    Raises:
        FloatingPointError: an action is not finite, so the networks have diverged.
        ValueError: a reward or the proprioception is not finite.
    """
    device, spec = agent.log_alpha.device, observation_spec(env.observation_space)
    returns, film = [], Film(env, agent.config.crop)
    watch = watch or PictureWatch()
    endless = getattr(env, "max_episode_steps", None) is None
    for episode in range(episodes):
        observation, _ = env.reset(seed=derived_seed(seed, "evaluation episode", episode))
        watch.begin(spec.pixels(observation), number=_WATCHED)
        total, over, steps, mentioned_at = 0.0, False, 0, _LONG
        while not over:
            if stop():
                return None
            if record and episode == 0:
                film.add(spec.pixels(observation), step=steps, total=total)
            pixels, proprioception = spec.batch_of_one(observation, device)
            action = agent.act(pixels, proprioception=proprioception)[0].cpu().numpy()
            if not np.isfinite(action).all():
                raise FloatingPointError(f"the policy's action is {action.tolist()}")
            observation, reward, terminated, truncated, _ = env.step(action)
            if not math.isfinite(reward):
                raise ValueError(f"the environment's reward must be finite, got {reward}")
            total, over, steps = total + float(reward), terminated or truncated, steps + 1
            watch.step(spec.pixels(observation), over=over, number=_WATCHED)
            if endless and steps == mentioned_at:
                say(f"evaluation: episode {episode + 1} has not ended after {steps:,} agent steps")
                mentioned_at *= 10
        if record and episode == 0:
            film.add(spec.pixels(observation), step=steps, total=total)
        returns.append(total)
        after_episode()
    fps = float(env.metadata.get("render_fps") or 30)
    return Evaluation(returns, film.pictures() if record else None, fps)
