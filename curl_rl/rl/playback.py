"""What an agent sees, computes and receives in some moments of its task, to be shown to people."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from torch import Tensor

from curl_rl.augment import center_crop
from curl_rl.rl.agent import Agent
from curl_rl.rl.observations import observation_spec
from curl_rl.rl.replay import Batch
from curl_rl.rl.sac import joined
from curl_rl.runs.seeds import derived_seed

_AT_ONCE = 128


class Moments(NamedTuple):
    """N moments, on the CPU."""

    observations: Tensor
    """``(N, C, H, W)`` uint8."""
    proprioception: Tensor | None
    """``(N, P)`` float32; None if the agent has none."""
    features: Tensor
    """``(N, D)``: the encoder's vector of the center crop."""
    rewards: Tensor
    """``(N,)``: received for the action taken there."""
    q: Tensor
    """``(N,)``: the lower Q value of the action taken there."""
    states: Tensor
    """``(N, K)``: the physical state, which the agent does not see; K = 0 if the environment has none."""
    state_names: tuple[str, ...] = ()
    """Name of each of its numbers."""


def play(
    agent: Agent,
    env: gymnasium.Env[Any, Any],
    *,
    steps: int,
    seed: int,
    after_step: Callable[[], object] = lambda: None,
) -> Moments:
    """Plays ``steps`` agent steps with the mean action, over as many episodes as they take. Changes nothing.

    Args:
        agent: the agent.
        env: its environment; one with ``state_names`` and ``physical_state()`` tells the physical state.
        steps: how many moments.
        seed: the run's seed; the episodes are those of its evaluations.
        after_step: called after each step, to show progress.

    Raises:
        ValueError: the proprioception is not finite.
    """
    spec, device = observation_spec(env.observation_space), agent.log_alpha.device
    names: tuple[str, ...] = tuple(getattr(env, "state_names", ()))
    pixels, beside, actions, rewards, states = [], [], [], [], []
    observation: Any = None
    episode = 0
    for _ in range(steps):
        if observation is None:
            observation, _ = env.reset(seed=derived_seed(seed, "evaluation episode", episode))
            episode += 1
        image, proprioception = spec.batch_of_one(observation, device)
        action = agent.act(image, proprioception=proprioception)
        pixels.append(image)
        beside.append(proprioception)
        actions.append(action)
        states.append(_state(env, names))
        observation, reward, terminated, truncated, _ = env.step(action[0].cpu().numpy())
        rewards.append(float(reward))
        if terminated or truncated:
            observation = None
        after_step()
    vectors = [one for one in beside if one is not None]
    return _moments(
        agent,
        torch.cat(pixels),
        torch.cat(vectors) if vectors else None,
        torch.cat(actions),
        torch.tensor(rewards),
        torch.from_numpy(np.stack(states)),
        names,
    )


def of_batch(agent: Agent, batch: Batch) -> Moments:
    """The moments of a batch from the replay, which holds no physical state. Rewards are as summed there."""
    states = torch.empty(len(batch.observation), 0)
    return _moments(
        agent, batch.observation, batch.proprioception, batch.action, batch.reward.squeeze(1).cpu(), states, ()
    )


@torch.no_grad()
def _moments(
    agent: Agent,
    observations: Tensor,
    proprioception: Tensor | None,
    actions: Tensor,
    rewards: Tensor,
    states: Tensor,
    names: tuple[str, ...],
) -> Moments:
    features = torch.cat([agent.encoder(center_crop(part, agent.config.crop)) for part in observations.split(_AT_ONCE)])
    q = agent.critic(joined(features, proprioception), actions.to(features.dtype)).min(0).values.squeeze(1)
    beside = None if proprioception is None else proprioception.cpu()
    return Moments(observations.cpu(), beside, features.float().cpu(), rewards, q.float().cpu(), states, names)


def _state(env: gymnasium.Env[Any, Any], names: tuple[str, ...]) -> np.ndarray[Any, np.dtype[np.float64]]:
    if not names:
        return np.empty(0)
    told: Any = env
    return np.asarray(told.physical_state(), np.float64)
