"""The agent's policy against calling the agent directly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from curl_rl.encoders import EncoderConfig
from curl_rl.objectives import ObjectiveConfigs
from curl_rl.rl.acting import agent_policy
from curl_rl.rl.agent import Agent, AgentConfig


def test_an_agents_mean_and_sampled_actions() -> None:
    torch.manual_seed(0)
    config = AgentConfig(crop=6, hidden=4, encoder=EncoderConfig(2, (2,), 4), precision="float32")
    agent = Agent((6, 8, 8), 2, config, ObjectiveConfigs())
    observation = np.random.default_rng(1).integers(0, 256, (6, 8, 8)).astype(np.uint8)
    tensor = torch.from_numpy(observation)[None]

    mean = agent_policy(agent, sampled=False)(observation, np.random.default_rng(2))
    assert np.array_equal(mean, agent.act(tensor)[0].numpy())
    assert mean.dtype == np.float32
    sampled = agent_policy(agent, sampled=True)
    one, same, other = (sampled(observation, np.random.default_rng(seed)) for seed in (2, 2, 3))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    noise = torch.from_numpy(np.random.default_rng(2).standard_normal((1, 2)).astype(np.float32))
    assert np.array_equal(one, agent.act(tensor, noise)[0].numpy())

    with torch.no_grad():
        agent.actor_projection.linear.bias.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="the policy's action is"):
        sampled(observation, np.random.default_rng(2))
