"""The update with a frozen encoder against Soft Actor-Critic written out on its features."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from helpers.small_agent import ACTIONS, make_agent, make_inputs, trained_encoder


@pytest.mark.parametrize("rule", ["exact", "joint"])
def test_a_frozen_encoder_does_not_change_and_the_rest_learns_from_its_features(rule: Any) -> None:
    """Two updates against SAC written out on precomputed features, with torch's own Adam."""
    agent, encoder = make_agent(objective="none", freeze_encoder=True, update_rule=rule), trained_encoder()
    agent.start_from(encoder)
    reference = copy.deepcopy(agent)
    critic, target, actor, projection = (
        getattr(reference, name) for name in ("critic", "target_critic", "actor", "actor_projection")
    )
    log_alpha = reference.log_alpha
    of_critic = torch.optim.Adam(critic.parameters(), 1e-3)
    of_actor = torch.optim.Adam([*projection.parameters(), *actor.parameters()], 1e-3)
    of_alpha = torch.optim.Adam([log_alpha], 1e-4, betas=(0.5, 0.999))
    for number in range(2):
        inputs = make_inputs(agent, seed=number)
        agent.update(inputs)
        with torch.no_grad():
            (seen, seen_map, _), (then, then_map, _) = (
                encoder.encode(x) for x in (inputs.observation, inputs.next_observation)
            )
            policy = actor(projection(then_map), inputs.next_noise)
            value = target(then, policy.action).min(0).values - log_alpha.exp() * policy.log_prob
            goal = inputs.reward + inputs.discount * value
        of_critic.zero_grad()
        sum(F.mse_loss(q, goal) for q in critic(seen, inputs.action)).backward()
        of_critic.step()
        if number == 1:
            continue  # actor and targets move in every second update
        policy = actor(projection(seen_map), inputs.noise)
        of_actor.zero_grad()
        (log_alpha.detach().exp() * policy.log_prob - critic(seen, policy.action).min(0).values).mean().backward()
        of_actor.step()
        of_alpha.zero_grad()
        (log_alpha.exp() * (-policy.log_prob.detach() + ACTIONS)).mean().backward()
        of_alpha.step()
        with torch.no_grad():
            for slow, fast in zip(target.parameters(), critic.parameters(), strict=True):
                slow.copy_(0.99 * slow + 0.01 * fast)
    for (name, ours), theirs in zip(agent.named_parameters(), reference.parameters(), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-8, atol=1e-12), name
    for own in (agent.encoder, agent.target_encoder):
        assert all(torch.equal(value, encoder.state_dict()[name]) for name, value in own.state_dict().items())
    assert not torch.equal(agent.critic.weights[0], make_agent(objective="none").critic.weights[0])


@pytest.mark.parametrize("rule", ["exact", "joint"])
def test_a_frozen_encoder_runs_twice_and_never_backward(rule: Any) -> None:
    agent = make_agent(objective="none", freeze_encoder=True, update_rule=rule)
    maps: list[torch.Tensor] = []
    agent.encoder.convolutions.register_forward_hook(lambda *call: maps.append(call[-1]))
    for seed in range(2):
        agent.update(make_inputs(agent, seed))
        assert len(maps) == 2 * (seed + 1)
    assert not any(feature_map.requires_grad for feature_map in maps)
    held = {
        id(p) for optimizer in agent.optimizers.values() for group in optimizer.param_groups for p in group["params"]
    }
    assert not held & {id(parameter) for parameter in agent.encoder.parameters()}


def test_a_saved_frozen_agent_trains_on_identically() -> None:
    agent = make_agent(objective="none", freeze_encoder=True)
    agent.update(make_inputs(agent))
    other = make_agent(seed=5, objective="none", freeze_encoder=True)
    other.load_training_state(copy.deepcopy(agent.training_state()))
    for one in (agent, other):
        one.update(make_inputs(agent, seed=1))
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in agent.state_dict().items())
