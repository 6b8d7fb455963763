"""The joint update against both losses written out from their definitions."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F

from curl_rl.objectives import ViewSpec
from helpers.small_agent import BATCH, make_agent, make_inputs


def test_a_joint_update_steps_the_encoder_once_on_the_sum_of_both_losses() -> None:
    """Against autograd on both losses written out, with keys from the targets before their move."""
    agent = make_agent(update_rule="joint", actor_every=1000, critic_lr=3e-4, encoder_lr=1e-3)
    inputs = make_inputs(agent)
    reference = copy.deepcopy(agent)
    with torch.no_grad():
        policy = reference.actor(
            reference.actor_projection(reference.encoder.convolutions(inputs.next_observation)), inputs.next_noise
        )
        next_q = reference.target_critic(reference.target_encoder(inputs.next_observation), policy.action).min(0).values
        target = inputs.reward + inputs.discount * (next_q - reference.alpha * policy.log_prob)
    query = reference.encoder(inputs.observation)
    q = reference.critic(query, inputs.action)
    critic_loss = F.mse_loss(q[0], target) + F.mse_loss(q[1], target)
    key = reference.target_encoder(inputs.views[ViewSpec(1)])
    contrastive_loss = F.cross_entropy(query @ reference.objective.W @ key.T, torch.arange(BATCH))  # type: ignore
    (critic_loss + contrastive_loss).backward()
    agent.updates = 1  # nothing but critics and objective is due
    metrics = agent.update(inputs)
    assert torch.allclose(metrics["critic/loss"], critic_loss.detach(), rtol=1e-9)
    assert torch.allclose(metrics["objective/loss"], contrastive_loss.detach(), rtol=1e-9)
    for part, lr in (("encoder", 3e-4), ("critic", 3e-4), ("objective", 1e-3)):
        ours, theirs = getattr(agent, part), getattr(reference, part)
        for (name, new), old in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            step = lr * old.grad / (old.grad.abs() + 1e-8)  # Adam's first
            assert torch.allclose(new.detach(), old.detach() - step, rtol=1e-6, atol=1e-9), f"{part}.{name}"


def test_the_actor_of_a_joint_update_uses_the_encoder_before_its_step() -> None:
    agent = make_agent(update_rule="joint")
    inputs = make_inputs(agent)
    before, after = copy.deepcopy(agent), agent
    metrics = agent.update(inputs)
    policy = before.actor(before.actor_projection(before.encoder.convolutions(inputs.observation)), inputs.noise)
    q = after.critic(before.encoder(inputs.observation), policy.action).min(0).values
    expected = (before.alpha * policy.log_prob - q).mean()
    assert torch.allclose(metrics["actor/loss"], expected, rtol=1e-9)
