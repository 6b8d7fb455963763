"""Proprioception in the agent: where it acts, where it must not, and the limit in which it has no weight."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from curl_rl.objectives import ViewSpec
from curl_rl.rl import replay as replay_module
from curl_rl.rl.agent import Agent, UpdateInputs
from curl_rl.rl.learner import Learner
from curl_rl.rl.replay import Replay, ReplayConfig
from helpers.small_agent import ACTIONS, BATCH, SHAPE, SMALL, make_agent, make_batch, snapshot

WIDTH = 3
LATENT = SMALL.encoder.latent
RULES = {
    "exact": {},
    "detached": {"detach_encoder": True},
    "joint": {"update_rule": "joint"},
    "frozen": {"objective": "none", "freeze_encoder": True},
}


def feeling_agent(**changes: Any) -> Agent:
    torch.manual_seed(0)
    return Agent(SHAPE, ACTIONS, dataclasses.replace(SMALL, **changes), proprioception=WIDTH).double()


def vectors(seed: int) -> Tensor:
    return torch.randn(BATCH, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inputs_of(agent: Agent, seed: int = 0) -> UpdateInputs:
    batch = make_batch(seed)._replace(proprioception=vectors(seed), next_proprioception=vectors(seed + 1))
    return agent.draw(batch, torch.Generator().manual_seed(seed))


def without_weight(agent: Agent, plain: Agent) -> None:
    """Copies the weights of an agent without proprioception; the vector gets weights of zero."""
    weights = plain.state_dict()
    with torch.no_grad():
        for name, value in agent.state_dict().items():
            given = weights[name]
            if value.shape == given.shape:
                value.copy_(given)
            elif name == "actor.trunk.0.weight":
                value.copy_(torch.cat([given, given.new_zeros(len(given), WIDTH)], dim=1))
            else:
                assert name in ("critic.weights.0", "target_critic.weights.0")
                features, actions = given[:, :LATENT], given[:, LATENT:]
                value.copy_(torch.cat([features, given.new_zeros(2, WIDTH, given.shape[2]), actions], dim=1))


@pytest.mark.parametrize("rule", RULES)
def test_a_vector_without_weight_changes_nothing(rule: str) -> None:
    """The first update equals that of an agent without proprioception, until the critics have learned of the vector."""
    agent, plain = feeling_agent(**RULES[rule]), make_agent(**RULES[rule])
    without_weight(agent, plain)
    inputs = inputs_of(agent)
    metrics = agent.update(inputs)
    others = plain.update(inputs._replace(proprioception=None, next_proprioception=None))
    assert metrics.keys() == others.keys()
    for name in others:
        # The vector's own weights have a gradient, and the critics' have been stepped on when the actor's loss is due.
        if not name.endswith("gradient_norm") and name != "actor/loss":
            assert torch.allclose(metrics[name], others[name], rtol=1e-9), name
    for name, weight in plain.encoder.state_dict().items():
        assert torch.allclose(agent.encoder.state_dict()[name], weight, rtol=1e-9), name
    new = agent.actor.trunk[0].weight[:, LATENT:]
    assert new.abs().max() > 0, "the actor has begun to use the vector"
    assert agent.critic.weights[0][:, LATENT : LATENT + WIDTH].abs().max() > 0, "so have the critics"


@pytest.mark.parametrize("rule", RULES)
def test_the_losses_of_actor_and_critics_see_the_vector_and_the_objective_does_not(rule: str) -> None:
    agent = feeling_agent(**RULES[rule])
    inputs = inputs_of(agent)
    moved = {name: getattr(inputs, name) + 1.0 for name in ("proprioception", "next_proprioception")}
    before = copy.deepcopy(agent).update(inputs)
    for name, value in moved.items():
        after = copy.deepcopy(agent).update(inputs._replace(**{name: value}))
        assert after["critic/loss"] != before["critic/loss"], name
        if name == "proprioception":
            assert after["actor/loss"] != before["actor/loss"]
        if rule == "joint":  # its objective sees the encoder before any step
            assert after["objective/loss"] == before["objective/loss"]


@pytest.mark.parametrize("rule", RULES)
def test_the_target_is_of_the_next_vector_alone(rule: str) -> None:
    """With an actor that does not see the vector, what is left is the target critics' view of the next state."""
    agent = feeling_agent(**RULES[rule])
    with torch.no_grad():
        agent.actor.trunk[0].weight[:, LATENT:] = 0
    inputs = inputs_of(agent)
    targets = [
        copy.deepcopy(agent).update(inputs._replace(**changes))["critic/target"]
        for changes in ({}, {"proprioception": vectors(7)}, {"next_proprioception": vectors(8)})
    ]
    assert targets[0] == targets[1]
    assert targets[0] != targets[2]


def test_the_gradient_of_the_vector_reaches_the_actor_and_never_the_encoder() -> None:
    agent = feeling_agent()
    inputs = inputs_of(agent)
    vector = inputs.proprioception.requires_grad_()  # type: ignore[union-attr]
    observed = agent.encoder.encode(inputs.observation)
    assert torch.autograd.grad(observed.vector.sum(), vector, allow_unused=True) == (None,)
    policy = agent.policy(observed.map, inputs.noise, vector)
    (gradient,) = torch.autograd.grad(policy.mean.sum(), vector)
    assert (gradient.abs().sum(1) > 0).all()
    # Nor has any weight of encoder or objective a size that depends on the vector's length.
    shapes = [
        {name: weight.shape for name, weight in part.state_dict().items()}
        for one in (agent, make_agent())
        for part in (one.encoder, one.objective)
    ]
    assert shapes[:2] == shapes[2:]


def test_the_objective_learns_the_same_whatever_the_vector() -> None:
    """With critics that stand still, encoder and objective after an update do not depend on the vector."""
    agent = feeling_agent()
    inputs = inputs_of(agent)
    other = copy.deepcopy(agent)
    for one in (agent, other):
        one.critic_optimizer = torch.optim.SGD(one.critic_parameters, lr=0.0)
    agent.update(inputs)
    other.update(inputs._replace(proprioception=vectors(7), next_proprioception=vectors(8)))
    weights, others = snapshot(agent), snapshot(other)
    for name in weights:
        if name.startswith(("encoder", "objective")):
            assert torch.equal(weights[name], others[name]), name
    assert not torch.equal(weights["actor.trunk.0.weight"], others["actor.trunk.0.weight"])


def test_draws_are_the_same_with_and_without_a_vector() -> None:
    agent, plain = feeling_agent(), make_agent()
    ours, theirs = inputs_of(agent), plain.draw(make_batch(0), torch.Generator().manual_seed(0))
    assert torch.equal(ours.observation, theirs.observation)
    assert torch.equal(ours.views[ViewSpec(1)], theirs.views[ViewSpec(1)])
    assert torch.equal(ours.noise, theirs.noise)
    assert theirs.proprioception is theirs.next_proprioception is None


def test_acting_follows_the_vector_on_a_black_picture() -> None:
    agent, black = feeling_agent(), torch.zeros((BATCH, *SHAPE), dtype=torch.uint8)
    one, other = (agent.act(black, None, vectors(seed)) for seed in (0, 1))
    assert not torch.allclose(one, other)
    features = agent.actor_projection(agent.encoder.convolutions(black[..., 2:-2, 2:-2]))
    mu, _ = agent.actor.trunk(torch.cat([features, vectors(0)], dim=1)).chunk(2, dim=-1)
    assert torch.allclose(one, mu.tanh())


@pytest.mark.parametrize("rule", RULES)
def test_an_update_never_reads_a_vectors_contents(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On tensors without contents, where reading a number fails: a CUDA graph can hold vectors as well."""
    monkeypatch.setattr(replay_module, "choose_storage", lambda *_: "device")
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # knows no such device
    with torch.device("meta"):
        agent = Agent(SHAPE, ACTIONS, dataclasses.replace(SMALL, **RULES[rule]), proprioception=WIDTH)
    for optimizer in agent.optimizers.values():
        for group in optimizer.param_groups:
            group["fused"] = False  # which knows no such device
    replay = Replay(ReplayConfig(20), SHAPE, ACTIONS, stack=2, device="meta", proprioception=WIDTH)
    frames, vector = np.zeros(SHAPE, np.uint8), np.zeros(WIDTH, np.float32)
    replay.start_episode(frames, proprioception=vector)
    for _ in range(5):
        replay.add(np.zeros(ACTIONS), 0.0, frames, next_proprioception=vector, terminated=False, truncated=False)
    learner = Learner(agent, replay, torch.Generator(), torch.Generator())
    for _ in range(2):
        assert {value.device.type for value in learner.update().values()} == {"meta"}
