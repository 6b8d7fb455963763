"""The update with a frozen encoder: Soft Actor-Critic on fixed features, without an objective.

A frozen encoder is its own target. An update runs it twice, without gradient: on the observation for critics and actor,
and on the next observation for the critics' target.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from curl_rl.objectives.momentum import move_towards
from curl_rl.rl import sac
from curl_rl.rl.update import actor_metrics, critic_metrics, step

if TYPE_CHECKING:
    from curl_rl.rl.agent import Agent, Due, UpdateInputs


def frozen_update(agent: Agent, inputs: UpdateInputs, due: Due, diagnose: bool) -> dict[str, Tensor]:
    """Updates the critics, then actor and temperature, then the critics' target.

    Equation numbers refer to SAC (arXiv 1812.05905). ``diagnose`` has no effect: its metrics are the objective's.
    Returns detached scalars.
    """
    alpha = agent.alpha
    with torch.no_grad():
        observed, following = (agent.encoder.encode(x) for x in (inputs.observation, inputs.next_observation))
        policy = agent.policy(following.map, inputs.next_noise, inputs.next_proprioception)
        next_q = agent.target_critic(sac.joined(following.vector, inputs.next_proprioception), policy.action)
        target = sac.td_target(inputs.reward, inputs.discount, next_q, policy.log_prob, alpha)  # eq. 6
    state = sac.joined(observed.vector, inputs.proprioception)
    q = agent.critic(state, inputs.action)
    critic_loss = sac.critic_loss(q, target)  # eq. 5
    metrics = critic_metrics(critic_loss, q, target, inputs.reward)
    metrics["critic/gradient_norm"] = step(critic_loss, agent.critic_parameters, agent.critic_optimizer)

    if due.actor:
        policy = agent.policy(observed.map, inputs.noise, inputs.proprioception)
        q = agent.critic(state, policy.action)
        actor_loss = sac.actor_loss(q, policy.log_prob, alpha.detach())  # eq. 7
        temperature_loss = sac.temperature_loss(alpha, policy.log_prob, agent.target_entropy)  # eq. 18
        metrics |= actor_metrics(actor_loss, temperature_loss, policy, alpha)
        metrics["actor/gradient_norm"] = step(actor_loss, agent.actor_parameters, agent.actor_optimizer)
        step(temperature_loss, [agent.log_alpha], agent.temperature_optimizer)

    if due.targets:
        move_towards(agent.target_critic.parameters(), agent.critic.parameters(), agent.config.critic_tau)
    return metrics
