"""Playing a policy to score it: deterministic actions, centre crops, an environment and seeds of its own."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import torch

from curl_rl.rl.agent import Agent
from curl_rl.runs.seeds import derived_seed


@dataclass(frozen=True)
class Evaluation:
    """What came of some episodes."""

    returns: list[float]
    """Undiscounted return of each episode."""
    pictures: npt.NDArray[np.uint8] | None
    """The first episode as seen, ``(T, H, W, 3)``; None where it was not recorded."""
    pictures_per_second: float
    """Speed at which the pictures show it in real time."""

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
) -> Evaluation | None:
    """Plays ``episodes`` episodes with the mean action; the same seeds give the same starts every time.

    Draws no random number of its own and changes nothing in the agent.

    Args:
        agent: whose policy plays.
        env: not the training environment.
        episodes: how many.
        seed: the run's seed.
        record: keep the first episode's pictures.
        stop: asked at every step; once it says yes, the evaluation is given up.
        after_episode: called after each episode, to show progress.

    Returns:
        The returns, or None if it was given up.

    Raises:
        FloatingPointError: an action is not finite: the networks have diverged.
        ValueError: a reward is not finite.
    """
    device = agent.log_alpha.device
    returns, pictures = [], []
    for episode in range(episodes):
        observation, _ = env.reset(seed=derived_seed(seed, "evaluation episode", episode))
        total, over = 0.0, False
        while not over:
            if stop():
                return None
            if record and episode == 0:
                pictures.append(_newest_frame(observation))
            action = agent.act(torch.from_numpy(observation).to(device)[None])[0].cpu().numpy()
            if not np.isfinite(action).all():
                raise FloatingPointError(f"the policy's action is {action.tolist()}")
            observation, reward, terminated, truncated, _ = env.step(action)
            if not math.isfinite(reward):
                raise ValueError(f"the environment's reward is {reward}: it must be finite")
            total, over = total + float(reward), terminated or truncated
        if record and episode == 0:
            pictures.append(_newest_frame(observation))
        returns.append(total)
        after_episode()
    fps = float(env.metadata.get("render_fps") or 30)
    return Evaluation(returns, np.stack(pictures) if pictures else None, fps)


def _newest_frame(observation: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """``(H, W, 3)`` from ``(stack·C, H, W)``; a frame that is not RGB is shown by its first channel in grey."""
    rgb = observation[-3:] if len(observation) % 3 == 0 else np.repeat(observation[-1:], 3, axis=0)
    return np.ascontiguousarray(rgb.transpose(1, 2, 0))
