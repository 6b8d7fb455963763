"""The paper's update: Soft Actor-Critic, then a self-supervised objective, on one encoder.

``joint_update`` and ``frozen_update`` are alternative update rules, which are different algorithms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from curl_rl.encoders import Features
from curl_rl.losses import effective_rank
from curl_rl.objectives import BatchInfo, Result, ViewSpec, encode_views
from curl_rl.objectives.momentum import move_towards
from curl_rl.rl import sac

if TYPE_CHECKING:
    from curl_rl.rl.agent import Agent, Due, UpdateInputs


def exact_update(agent: Agent, inputs: UpdateInputs, due: Due, diagnose: bool) -> dict[str, Tensor]:
    """Updates critics, actor and temperature, targets, objective, in this order; each uses the previous ones' results.

    Equation numbers refer to SAC (arXiv 1812.05905), unless another paper is named. Returns detached scalars.
    """
    config, alpha, objective = agent.config, agent.alpha, agent.objective

    # Critics: Q(s, a) → r + γ (min Q'(s', a') − α log π(a'|s')), a' ~ π(s'). Their loss trains the encoder as well.
    with torch.no_grad():
        next_map = agent.encoder.convolutions(inputs.next_observation)
        policy = agent.policy(next_map, inputs.next_noise, inputs.next_proprioception)
        following = sac.joined(agent.target_encoder(inputs.next_observation), inputs.next_proprioception)
        next_q = agent.target_critic(following, policy.action)
        target = sac.td_target(inputs.reward, inputs.discount, next_q, policy.log_prob, alpha)  # eq. 6
    observed = agent.encoder.encode(inputs.observation)
    state = agent.encoder.projection(observed.map.detach()) if config.detach_encoder else observed.vector
    q = agent.critic(sac.joined(state, inputs.proprioception), inputs.action)
    critic_loss = sac.critic_loss(q, target)  # eq. 5
    metrics = critic_metrics(critic_loss, q, target, inputs.reward)
    metrics["critic/gradient_norm"] = step(critic_loss, agent.critic_parameters, agent.critic_optimizer)

    # The critics' step changed the encoder. It stays fixed until the objective's: one pass serves actor and query.
    if due.actor or due.objective:
        with torch.set_grad_enabled(due.objective):
            observed = agent.encoder.encode(inputs.observation)

    # Actor: min α log π(a|s) − min Q(s, a), a ~ π(s), with no gradient into the encoder. Temperature: entropy → target.
    if due.actor:
        policy = agent.policy(observed.map.detach(), inputs.noise, inputs.proprioception)
        q = agent.critic(sac.joined(observed.vector.detach(), inputs.proprioception), policy.action)
        actor_loss = sac.actor_loss(q, policy.log_prob, alpha.detach())  # eq. 7
        temperature_loss = sac.temperature_loss(alpha, policy.log_prob, agent.target_entropy)  # eq. 18
        metrics |= actor_metrics(actor_loss, temperature_loss, policy, alpha)
        metrics["actor/gradient_norm"] = step(actor_loss, agent.actor_parameters, agent.actor_optimizer)
        step(temperature_loss, [agent.log_alpha], agent.temperature_optimizer)

    # Targets: θ' ← (1 − τ) θ' + τ θ; the encoder's target makes the keys (MoCo, arXiv 1911.05722, eq. 2).
    if due.targets:
        move_towards(agent.target_critic.parameters(), agent.critic.parameters(), config.critic_tau)
        move_towards(agent.target_encoder.parameters(), agent.encoder.parameters(), config.encoder_tau)

    # Objective: CURL's is InfoNCE on qᵀWk (CURL, arXiv 2004.04136, eq. 4), where q and k are crops of one observation.
    if due.objective and objective is not None:
        views = {ViewSpec(0): inputs.observation, **inputs.views}
        online = encode_views(agent.encoder.encode, views, objective.online_views, known={ViewSpec(0): observed})
        with torch.no_grad():
            slow = encode_views(agent.target_encoder.encode, views, objective.target_views)
        result = objective(online, slow, BatchInfo(actions=inputs.actions_ahead))
        metrics |= objective_metrics(result, online, diagnose)
        metrics["objective/gradient_norm"] = step(result.loss, agent.objective_parameters, *agent.objective_optimizers)
        momentum = 1 - config.encoder_tau if due.targets else 1.0
        objective.after_step(result.carry, result.loss.new_full((), momentum))
    return metrics


def step(loss: Tensor, parameters: list[nn.Parameter], *optimizers: torch.optim.Optimizer) -> Tensor:
    """Computes the gradient of ``loss``, steps each optimizer in turn, and returns the gradient's norm."""
    loss.backward(inputs=parameters)
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    for optimizer in optimizers:
        optimizer.step()
    for parameter in parameters:
        parameter.grad = None
    return norm


def critic_metrics(loss: Tensor, q: Tensor, target: Tensor, reward: Tensor) -> dict[str, Tensor]:
    """The critics' metrics, and the batch's reward: detached scalars."""
    return {
        "critic/loss": loss.detach(),
        "critic/q": q.detach().mean(),
        "critic/target": target.mean(),
        "batch/reward": reward.mean(),
    }


def actor_metrics(loss: Tensor, temperature_loss: Tensor, policy: sac.Policy, alpha: Tensor) -> dict[str, Tensor]:
    """The actor's and the temperature's metrics: detached scalars."""
    return {
        "actor/loss": loss.detach(),
        "actor/entropy": -policy.log_prob.detach().mean(),
        "temperature/loss": temperature_loss.detach(),
        "temperature/value": alpha.detach(),
    }


def objective_metrics(result: Result, online: list[Features], diagnose: bool) -> dict[str, Tensor]:
    """The objective's metrics: detached scalars. ``diagnose`` adds the effective rank of its first view."""
    metrics = {"loss": result.loss.detach(), **result.metrics}
    if diagnose:
        metrics["effective_rank"] = effective_rank(online[0].vector.detach())
    return {f"objective/{name}": value for name, value in metrics.items()}
