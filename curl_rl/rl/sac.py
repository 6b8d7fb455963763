"""Soft Actor-Critic (Haarnoja et al. 2018, arXiv 1812.05905): policy, twin critics, losses. Features in, numbers out.

Independent of pixels and contrastive learning: the caller passes in the encoder's features, and what is beside them.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curl_rl.encoders import orthogonal_init


class Policy(NamedTuple):
    """The actor's output for a batch of B states, with actions of size A."""

    mean: Tensor
    """The deterministic action tanh(μ), ``(B, A)`` in [−1, 1]."""
    action: Tensor
    """The sampled action tanh(μ + σ·noise), ``(B, A)``."""
    log_prob: Tensor
    """log π(action), ``(B, 1)``."""
    log_std: Tensor
    """log σ before the squashing, ``(B, A)``."""


class Actor(nn.Module):
    """A tanh-squashed Gaussian over actions, with a state-dependent standard deviation."""

    def __init__(self, features: int, actions: int, hidden: int, log_std_min: float, log_std_max: float) -> None:
        super().__init__()
        self.features, self.actions, self.hidden = features, actions, hidden
        self.log_std_min, self.log_std_max = log_std_min, log_std_max
        self.trunk = nn.Sequential(
            nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 2 * actions)
        )
        self.apply(orthogonal_init)

    def forward(self, features: Tensor, noise: Tensor) -> Policy:
        """The policy at ``(B, features)``, with an action sampled by ``(B, A)`` standard normal ``noise``."""
        mu, raw = self.trunk(features).chunk(2, dim=-1)
        log_std = self.log_std_min + 0.5 * (self.log_std_max - self.log_std_min) * (torch.tanh(raw) + 1)
        action = torch.tanh(mu + noise * log_std.exp())
        gaussian = (-0.5 * noise.square() - log_std).sum(-1, keepdim=True) - 0.5 * math.log(2 * math.pi) * mu.shape[-1]
        # The change of variables (appendix C); the floor bounds it for saturated actions.
        squash = torch.log(F.relu(1 - action.square()) + 1e-6).sum(-1, keepdim=True)
        return Policy(torch.tanh(mu), action, gaussian - squash, log_std)


class TwinCritic(nn.Module):
    """Two Q functions as one batched network: layer i of both is one product with ``weights[i]``, ``(2, in, out)``."""

    def __init__(self, features: int, actions: int, hidden: int) -> None:
        super().__init__()
        sizes = [features + actions, hidden, hidden, 1]
        shapes = list(pairwise(sizes))
        self.weights = nn.ParameterList(torch.empty(2, fan_in, fan_out) for fan_in, fan_out in shapes)
        self.biases = nn.ParameterList(torch.zeros(2, 1, fan_out) for _, fan_out in shapes)
        for pair in self.weights:
            for weight in pair:
                nn.init.orthogonal_(weight)

    def forward(self, features: Tensor, action: Tensor) -> Tensor:
        """Both Q values of ``(B, features)`` states and ``(B, A)`` actions: ``(2, B, 1)``."""
        x = torch.cat([features, action], dim=-1).expand(2, -1, -1)
        for depth, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x.relu() if depth else x, weight)
        return x


def joined(features: Tensor, proprioception: Tensor | None) -> Tensor:
    """The input of actor and critics: ``(B, D)`` features, followed by ``(B, P)`` proprioception if there is any."""
    return features if proprioception is None else torch.cat([features, proprioception], dim=-1)


def td_target(reward: Tensor, discount: Tensor, next_q: Tensor, next_log_prob: Tensor, alpha: Tensor) -> Tensor:
    """The critics' regression target r + γ (min Q' − α log π'), ``(B, 1)`` (equations 5 and 6).

    Args:
        reward: ``(B, 1)``; n-step rewards are already summed.
        discount: ``(B, 1)``, γⁿ, or 0 if the next state is terminal.
        next_q: ``(2, B, 1)``, the target critics at the next state and the policy's action there.
        next_log_prob: ``(B, 1)``, the log-probability of that action.
        alpha: temperature, a scalar.
    """
    return reward + discount * (next_q.min(0).values - alpha * next_log_prob)


def critic_loss(q: Tensor, target: Tensor) -> Tensor:
    """The sum of both critics' mean squared errors, ``(2, B, 1)`` against ``(B, 1)`` (equation 5, without its ½)."""
    return (q - target).square().mean((1, 2)).sum()


def actor_loss(q: Tensor, log_prob: Tensor, alpha: Tensor) -> Tensor:
    """E[α log π − min Q] for ``(2, B, 1)`` and ``(B, 1)`` (equation 7)."""
    return (alpha * log_prob - q.min(0).values).mean()


def temperature_loss(alpha: Tensor, log_prob: Tensor, target_entropy: float) -> Tensor:
    """E[α (−log π − target entropy)], with no gradient into the policy (equation 18)."""
    return (alpha * (-log_prob - target_entropy).detach()).mean()
