"""Played moments against the environment that was played and the agent that played."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch

import envs
from curl_rl.augment import center_crop
from curl_rl.encoders import EncoderConfig
from curl_rl.rl.agent import Agent, AgentConfig
from curl_rl.rl.playback import of_batch, play
from curl_rl.runs.seeds import derived_seed
from helpers.small_agent import make_agent, make_batch


@pytest.fixture
def agent() -> Agent:
    torch.manual_seed(0)
    return Agent((9, 12, 12), 2, AgentConfig(crop=10, hidden=4, encoder=EncoderConfig(2, (2,), 3)))


def test_moments_are_those_of_the_environment(agent: Agent) -> None:
    env = envs.make("tiny-reach", size=12)
    told: list[None] = []
    found = play(agent, env, steps=30, seed=4, after_step=lambda: told.append(None))
    assert len(told) == len(found.rewards) == 30
    assert found.state_names == ("point/x", "point/y", "target/x", "target/y")
    again = envs.make("tiny-reach", size=12)
    for number in range(30):  # an episode has 25 steps
        if number % 25 == 0:
            observation, _ = again.reset(seed=derived_seed(4, "evaluation episode", number // 25))
        assert np.array_equal(found.observations[number].numpy(), observation)
        assert np.array_equal(found.states[number].numpy(), again.physical_state())
        action = agent.act(torch.from_numpy(observation)[None])
        observation, reward, *_ = again.step(action[0].numpy())
        assert found.rewards[number] == pytest.approx(reward)
    with torch.no_grad():
        features = agent.encoder(center_crop(found.observations, 10))
        q = agent.critic(features, agent.act(found.observations)).min(0).values[:, 0]
    assert torch.allclose(found.features, features, atol=1e-6)
    assert torch.allclose(found.q, q, atol=1e-6)


def test_an_environment_without_a_state_has_none(agent: Agent) -> None:
    class Bare(gymnasium.Wrapper):
        @property
        def state_names(self) -> tuple[str, ...]:
            return ()

    found = play(agent, Bare(envs.make("tiny-reach", size=12)), steps=3, seed=0)
    assert found.states.shape == (3, 0)
    assert found.proprioception is None


def test_moments_of_a_batch_are_the_batch() -> None:
    agent, batch = make_agent(), make_batch()
    found = of_batch(agent, batch)
    assert torch.equal(found.observations, batch.observation)
    assert torch.equal(found.rewards, batch.reward[:, 0])
    assert found.states.shape == (len(batch.observation), 0)
    with torch.no_grad():
        q = agent.critic(agent.encoder(center_crop(batch.observation, 20)), batch.action).min(0).values[:, 0]
    assert torch.allclose(found.q.double(), q, atol=1e-5)
