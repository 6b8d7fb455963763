"""Adapts an agent to the recorder's policy interface."""

from __future__ import annotations

import numpy as np
import torch

from curl_rl.recordings.recorder import Action, Observation, Policy
from curl_rl.rl.agent import Agent
from curl_rl.rl.observations import ObservationSpec


def agent_policy(agent: Agent, *, sampled: bool, spec: ObservationSpec | None = None) -> Policy:
    """Returns the agent's policy for one environment: sampled actions, or the mean action.

    Args:
        agent: the agent.
        sampled: sample the actions.
        spec: what the environment's observations hold. None: pixels only.

    Raises, when it acts:
        FloatingPointError: an action is not finite, so the networks have diverged.
        ValueError: the proprioception is not finite.
    """
    device = agent.log_alpha.device
    reader = spec or ObservationSpec(agent.encoder.observation_shape)

    def act(observation: Observation, generator: np.random.Generator) -> Action:
        noise = None
        if sampled:
            noise = torch.from_numpy(generator.standard_normal((1, agent.action_dim)).astype(np.float32)).to(device)
        pixels, proprioception = reader.batch_of_one(observation, device)
        action: Action = agent.act(pixels, noise, proprioception)[0].cpu().numpy()
        if not np.isfinite(action).all():
            raise FloatingPointError(f"the policy's action is {action.tolist()}")
        return action

    return act
