"""The joint update: critics and objective share one encoder pass and one encoder step.

Faster than the paper's update (see ``update``), but a different algorithm. The objective's query and the actor use the
encoder before the step, the keys come from the targets before their move, and the encoder takes one step, with the
critics' optimizer, on the sum of both losses' gradients.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from curl_rl.objectives import BatchInfo, ViewSpec, encode_views
from curl_rl.objectives.momentum import move_towards
from curl_rl.rl import sac
from curl_rl.rl.update import actor_metrics, critic_metrics, objective_metrics, step

if TYPE_CHECKING:
    from curl_rl.rl.agent import Agent, Due, UpdateInputs


def joint_update(agent: Agent, inputs: UpdateInputs, due: Due, diagnose: bool) -> dict[str, Tensor]:
    """Updates critics and objective in one step, then actor and temperature, then the targets.

    Equation numbers refer to SAC (arXiv 1812.05905). Returns detached scalars.
    """
    config, alpha = agent.config, agent.alpha
    objective = agent.objective if due.objective else None

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

    if objective is None:
        loss, parameters, optimizers = critic_loss, agent.critic_parameters, [agent.critic_optimizer]
    else:
        views = {ViewSpec(0): inputs.observation, **inputs.views}
        online = encode_views(agent.encoder.encode, views, objective.online_views, known={ViewSpec(0): observed})
        with torch.no_grad():
            slow = encode_views(agent.target_encoder.encode, views, objective.target_views)
        result = objective(online, slow, BatchInfo(actions=inputs.actions_ahead))
        metrics |= objective_metrics(result, online, diagnose)
        loss = critic_loss + result.loss
        parameters = [*agent.critic_parameters, *objective.parameters()]
        optimizers = [agent.critic_optimizer, *agent.objective_optimizers]
    metrics["critic/gradient_norm"] = step(loss, parameters, *optimizers)

    if due.actor:
        policy = agent.policy(observed.map.detach(), inputs.noise, inputs.proprioception)
        q = agent.critic(sac.joined(observed.vector.detach(), inputs.proprioception), policy.action)
        actor_loss = sac.actor_loss(q, policy.log_prob, alpha.detach())  # eq. 7
        temperature_loss = sac.temperature_loss(alpha, policy.log_prob, agent.target_entropy)  # eq. 18
        metrics |= actor_metrics(actor_loss, temperature_loss, policy, alpha)
        metrics["actor/gradient_norm"] = step(actor_loss, agent.actor_parameters, agent.actor_optimizer)
        step(temperature_loss, [agent.log_alpha], agent.temperature_optimizer)

    if due.targets:
        move_towards(agent.target_critic.parameters(), agent.critic.parameters(), config.critic_tau)
        move_towards(agent.target_encoder.parameters(), agent.encoder.parameters(), config.encoder_tau)
    if objective is not None:
        momentum = 1 - config.encoder_tau if due.targets else 1.0
        objective.after_step(result.carry, result.loss.new_full((), momentum))
    return metrics
