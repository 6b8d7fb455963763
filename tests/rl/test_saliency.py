"""Gradients with respect to pixels against finite differences."""

from __future__ import annotations

import copy

import pytest
import torch

from curl_rl.augment import center_crop
from curl_rl.rl.agent import Agent
from curl_rl.rl.pictures import saliency_picture, seen_picture
from curl_rl.rl.saliency import saliency
from helpers.small_agent import SHAPE, make_agent, make_batch

_STEP = 1e-6


@pytest.fixture(scope="module")
def agent() -> Agent:
    return make_agent(seed=3)


def test_saliency_is_the_derivative_of_actions_and_q(agent: Agent) -> None:
    observations = make_batch(1).observation[:2]
    found = saliency(agent, observations)
    images = observations.double() / 255

    def outputs(images: torch.Tensor, action: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        feature_map = agent.encoder.convolutions(center_crop(images, agent.config.crop))
        mean = agent.policy(feature_map, torch.zeros(len(images), 2).double()).mean
        features = agent.encoder.projection(feature_map)
        return mean, agent.critic(features, mean if action is None else action).min(0).values

    with torch.no_grad():
        mean, _ = outputs(images)
        for row, column in ((7, 9), (12, 15)):
            actor, critic = torch.zeros(2).double(), torch.zeros(2).double()
            for channel in range(SHAPE[0]):
                moved = [images.clone(), images.clone()]
                moved[0][:, channel, row, column] += _STEP
                moved[1][:, channel, row, column] -= _STEP
                (up, q_up), (down, q_down) = (outputs(one, mean) for one in moved)
                actor += ((up - down) / (2 * _STEP)).abs().sum(1)
                critic += ((q_up - q_down) / (2 * _STEP)).abs().sum(1)
            assert torch.allclose(found.actor[:, row, column], actor, rtol=1e-4)
            assert torch.allclose(found.critic[:, row, column], critic, rtol=1e-4)


def test_nothing_outside_the_crop_matters_and_nothing_is_changed(agent: Agent) -> None:
    before = copy.deepcopy(agent.state_dict())
    observations = make_batch(2).observation
    found = saliency(agent, observations)
    assert found.actor.shape == found.critic.shape == (len(observations), *SHAPE[1:])
    outside = torch.ones(SHAPE[1:], dtype=torch.bool)
    outside[2:22, 2:22] = False  # a crop of 20 from 24
    assert not found.actor[:, outside].any()
    assert found.actor[:, ~outside].any()
    assert all(torch.equal(value, before[name]) for name, value in agent.state_dict().items())
    assert all(parameter.grad is None for parameter in agent.parameters())


def test_pictures_show_the_newest_frame_and_the_center_crop(agent: Agent) -> None:
    observations = make_batch(3).observation[:2]
    seen = seen_picture(agent, observations, torch.Generator().manual_seed(0))
    assert seen.shape == (3, 2 * (24 + 2), 24 + 2 + 3 * (20 + 2))
    for row in range(2):
        top = row * 26
        assert torch.equal(seen[:, top : top + 24, :24], observations[row, 3:])
        assert torch.equal(seen[:, top : top + 20, 26:46], observations[row, 3:, 2:22, 2:22])
    picture = saliency_picture(observations, saliency(agent, observations))
    assert picture.shape == (3, 3 * 26, 2 * 26)
    assert torch.equal(picture[:, :24, 26:50], observations[1, 3:])
    # Outside the crop nothing matters, so these pixels are gray.
    corner = picture[:, 26:28, :2]
    assert torch.equal(corner[0], corner[1])
    assert torch.equal(corner[0], corner[2])
