"""Adapts an agent to the recorder's policy interface."""

from __future__ import annotations

import numpy as np
import torch

from curl_rl.recordings.recorder import Action, Observation, Policy
from curl_rl.rl.agent import Agent


def agent_policy(agent: Agent, *, sampled: bool) -> Policy:
    """Returns the agent's policy for one environment: sampled actions, or the mean action.

    Raises, when it acts:
        FloatingPointError: an action is not finite, so the networks have diverged.
    """
    device = agent.log_alpha.device

    def act(observation: Observation, generator: np.random.Generator) -> Action:
        noise = None
        if sampled:
            noise = torch.from_numpy(generator.standard_normal((1, agent.action_dim)).astype(np.float32)).to(device)
        action: Action = agent.act(torch.from_numpy(observation).to(device)[None], noise)[0].cpu().numpy()
        if not np.isfinite(action).all():
            raise FloatingPointError(f"the policy's action is {action.tolist()}")
        return action

    return act
