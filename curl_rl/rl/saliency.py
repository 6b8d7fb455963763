"""Which pixels the actor and the critics react to: gradients of their outputs.

The method is that of Simonyan et al. 2013, arXiv 1312.6034.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from curl_rl.augment import center_crop
from curl_rl.rl.agent import Agent
from curl_rl.rl.sac import joined


class Saliency(NamedTuple):
    """The reaction to every pixel of some observations, summed over the channels of all stacked frames."""

    actor: Tensor
    """``(N, H, W)``: sum over the actions of the mean action's absolute derivative."""
    critic: Tensor
    """``(N, H, W)``: absolute derivative of the lower Q value of the mean action."""


def saliency(agent: Agent, observations: Tensor, proprioception: Tensor | None = None) -> Saliency:
    """The saliency of ``(N, C, H, W)`` uint8 observations, zero outside the center crop. Does not change the agent.

    Args:
        agent: the agent.
        observations: on the agent's device.
        proprioception: ``(N, P)``, if the agent has any.
    """
    images = (observations.to(agent.log_alpha.dtype) / 255).requires_grad_()
    with torch.enable_grad():
        seen = center_crop(images, agent.config.crop)
        feature_map = agent.encoder.convolutions(seen)
        no_noise = feature_map.new_zeros(len(images), agent.action_dim, dtype=images.dtype)
        mean = agent.policy(feature_map, no_noise, proprioception).mean
        features = joined(agent.encoder.projection(feature_map), proprioception)
        q = agent.critic(features, mean.detach()).min(0).values
        # Each image's output depends on that image alone, so the gradient of the sum holds every image's own.
        of_actions = [_gradient(mean[:, action].sum(), images) for action in range(agent.action_dim)]
        of_q = _gradient(q.sum(), images)
    return Saliency(torch.stack([part.abs().sum(1) for part in of_actions]).sum(0), of_q.abs().sum(1))


def _gradient(output: Tensor, images: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(output, images, retain_graph=True)
    return gradient
