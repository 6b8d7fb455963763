"""CURL in one file: Soft Actor-Critic from pixels, and the contrastive loss on its encoder.

    python examples/curl_in_one_file.py              # learns tiny-reach, in under a minute on one CPU core
    python examples/curl_in_one_file.py --steps 5000 --seed 2

Laskin, Srinivas and Abbeel 2020 (arXiv 2004.04136), in the style of common codebases: eager float32, separate forward
passes for every loss, and both observations of a transition stored whole in host memory and cropped there. It computes
the same numbers as the preset `curl` (tests/examples/test_curl_in_one_file.py) and does not use curl_rl. benchmarks/
measures the package against it, so nothing in it is slow on purpose.
"""

from __future__ import annotations

import argparse
import copy
import math
from collections import deque
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import envs


class Batch(NamedTuple):
    """B cropped transitions in float32 on the device; pixels are in [0, 255]."""

    observation: Tensor
    action: Tensor
    reward: Tensor
    discount: Tensor
    next_observation: Tensor
    key: Tensor
    """A second crop of ``observation``."""


class Replay:
    """Observations and next observations in numpy arrays, each stack stored whole."""

    def __init__(
        self, capacity: int, observation_shape: tuple[int, int, int], action_dim: int, device: torch.device
    ) -> None:
        self.observation = np.empty((capacity, *observation_shape), np.uint8)
        self.next_observation = np.empty((capacity, *observation_shape), np.uint8)
        self.action = np.empty((capacity, action_dim), np.float32)
        self.reward = np.empty((capacity, 1), np.float32)
        self.not_done = np.empty((capacity, 1), np.float32)
        self.capacity, self.device = capacity, device
        self.added = 0

    def add(
        self,
        observation: npt.NDArray[np.uint8],
        action: npt.NDArray[np.float32],
        reward: float,
        next_observation: npt.NDArray[np.uint8],
        terminated: bool,
    ) -> None:
        """Stores one transition; replaces the oldest one when full."""
        slot = self.added % self.capacity
        self.observation[slot], self.next_observation[slot] = observation, next_observation
        self.action[slot], self.reward[slot], self.not_done[slot] = action, reward, not terminated
        self.added += 1

    def sample(self, batch_size: int, crop: int, discount: float, generator: np.random.Generator) -> Batch:
        """Uniform transitions; independent crops of the observation, the next one, and the observation again."""
        index = generator.integers(min(self.added, self.capacity), size=batch_size)
        observation, next_observation = self.observation[index], self.next_observation[index]
        crops = [_random_crop(stack, crop, generator) for stack in (observation, next_observation, observation)]
        pixels = [torch.as_tensor(stack, device=self.device).float() for stack in crops]
        action, reward, not_done = (
            torch.as_tensor(array[index], device=self.device) for array in (self.action, self.reward, self.not_done)
        )
        return Batch(pixels[0], action, reward, discount * not_done, pixels[1], pixels[2])


def _random_crop(images: npt.NDArray[np.uint8], size: int, generator: np.random.Generator) -> npt.NDArray[np.uint8]:
    places = images.shape[2] - size + 1, images.shape[3] - size + 1
    top, left = (generator.integers(count, size=len(images)) for count in places)
    windows = np.lib.stride_tricks.sliding_window_view(images, (size, size), axis=(2, 3))
    return windows[np.arange(len(images)), :, top, left]


class Encoder(nn.Module):
    """Four convolutions, a linear layer, layer norm."""

    def __init__(self, channels: int, size: int, filters: int, latent: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(channels if depth == 0 else filters, filters, 3, 2 if depth == 0 else 1) for depth in range(4)
        )
        side = (size - 3) // 2 + 1 - 6
        self.fc = nn.Linear(filters * side * side, latent)
        self.ln = nn.LayerNorm(latent)

    def forward(self, observation: Tensor, detach: bool = False) -> Tensor:
        """``(B, C, H, W)`` pixels in [0, 255] to ``(B, latent)``; ``detach`` stops the gradient at the map."""
        x = observation / 255.0
        for conv in self.convs:
            x = torch.relu(conv(x))
        x = x.flatten(1)
        if detach:
            x = x.detach()
        features: Tensor = self.ln(self.fc(x))
        return features


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs)
    )


class Actor(nn.Module):
    """Encoder and policy."""

    def __init__(self, encoder: Encoder, latent: int, action_dim: int, hidden: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.trunk = _mlp(latent, hidden, 2 * action_dim)

    def mean(self, observation: Tensor) -> Tensor:
        """The action ``(B, A)`` without noise."""
        return torch.tanh(self.trunk(self.encoder(observation)).chunk(2, dim=-1)[0])

    def forward(self, observation: Tensor, detach_encoder: bool = False) -> tuple[Tensor, Tensor]:
        """A sampled action ``(B, A)`` and its log probability ``(B, 1)``."""
        mu, log_std = self.trunk(self.encoder(observation, detach=detach_encoder)).chunk(2, dim=-1)
        log_std = -10 + 0.5 * (2 - -10) * (torch.tanh(log_std) + 1)
        noise = torch.randn_like(mu)
        log_prob = (-0.5 * noise.pow(2) - log_std).sum(-1, keepdim=True) - 0.5 * math.log(2 * math.pi) * mu.size(-1)
        action = torch.tanh(mu + noise * log_std.exp())
        log_prob = log_prob - torch.log(F.relu(1 - action.pow(2)) + 1e-6).sum(-1, keepdim=True)
        return action, log_prob


class Critic(nn.Module):
    """Encoder and two Q functions."""

    def __init__(self, encoder: Encoder, latent: int, action_dim: int, hidden: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.q1 = _mlp(latent + action_dim, hidden, 1)
        self.q2 = _mlp(latent + action_dim, hidden, 1)

    def forward(self, observation: Tensor, action: Tensor, detach_encoder: bool = False) -> tuple[Tensor, Tensor]:
        """Both Q values, ``(B, 1)`` each."""
        x = torch.cat([self.encoder(observation, detach=detach_encoder), action], dim=1)
        return self.q1(x), self.q2(x)


class Agent:
    """SAC with CURL, with the paper's hyper-parameters."""

    def __init__(
        self,
        channels: int,
        crop: int,
        action_dim: int,
        *,
        filters: int = 32,
        latent: int = 50,
        hidden: int = 1024,
        lr: float = 1e-3,
        device: torch.device | str = "cpu",
    ) -> None:
        def encoder() -> Encoder:
            return Encoder(channels, crop, filters, latent)

        self.actor = Actor(encoder(), latent, action_dim, hidden).to(device)
        self.critic = Critic(encoder(), latent, action_dim, hidden).to(device)
        for mine, shared in zip(self.actor.encoder.convs, self.critic.encoder.convs, strict=True):
            mine.weight, mine.bias = shared.weight, shared.bias
        self.critic_target = copy.deepcopy(self.critic)
        self.W = nn.Parameter((torch.eye(latent) / latent**0.5).to(device))
        self.log_alpha = torch.tensor(math.log(0.1), device=device, requires_grad=True)
        self.target_entropy = -float(action_dim)
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), lr=lr)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), lr=lr)
        self.alpha_optimizer = torch.optim.Adam([self.log_alpha], lr=1e-4, betas=(0.5, 0.999))
        self.cpc_optimizer = torch.optim.Adam([*self.critic.encoder.parameters(), self.W], lr=lr)
        self.crop, self.device, self.updates = crop, device, 0

    @torch.no_grad()
    def act(self, observation: npt.NDArray[np.uint8], *, sample: bool) -> npt.NDArray[np.float32]:
        """An action ``(A,)`` for the center crop of one observation ``(C, H, W)``."""
        top, left = ((side - self.crop) // 2 for side in observation.shape[1:])
        center = observation[:, top : top + self.crop, left : left + self.crop]
        pixels = torch.as_tensor(center, device=self.device).float()[None]
        action = self.actor(pixels)[0] if sample else self.actor.mean(pixels)
        return np.asarray(action[0].cpu())

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One update; actor, temperature and targets only every second time."""
        losses = {"critic/loss": self._update_critic(batch)}
        if self.updates % 2 == 0:
            losses |= self._update_actor(batch.observation)
            self._update_target()
        losses["objective/loss"] = self._update_cpc(batch.observation, batch.key)
        self.updates += 1
        return losses

    def _update_critic(self, batch: Batch) -> Tensor:
        with torch.no_grad():
            next_action, log_prob = self.actor(batch.next_observation)
            next_q1, next_q2 = self.critic_target(batch.next_observation, next_action)
            value = torch.min(next_q1, next_q2) - self.log_alpha.exp() * log_prob
            target = batch.reward + batch.discount * value
        q1, q2 = self.critic(batch.observation, batch.action)
        loss = F.mse_loss(q1, target) + F.mse_loss(q2, target)
        self.critic_optimizer.zero_grad()
        loss.backward()
        self.critic_optimizer.step()
        return loss.detach()

    def _update_actor(self, observation: Tensor) -> dict[str, Tensor]:
        action, log_prob = self.actor(observation, detach_encoder=True)
        q1, q2 = self.critic(observation, action, detach_encoder=True)
        alpha = self.log_alpha.exp()
        loss = (alpha.detach() * log_prob - torch.min(q1, q2)).mean()
        self.actor_optimizer.zero_grad()
        loss.backward()
        self.actor_optimizer.step()
        alpha_loss = (alpha * (-log_prob - self.target_entropy).detach()).mean()
        self.alpha_optimizer.zero_grad()
        alpha_loss.backward()
        self.alpha_optimizer.step()
        return {"actor/loss": loss.detach(), "temperature/loss": alpha_loss.detach()}

    def _update_target(self) -> None:
        pairs = (
            (self.critic.encoder, self.critic_target.encoder, 0.05),
            (self.critic.q1, self.critic_target.q1, 0.01),
            (self.critic.q2, self.critic_target.q2, 0.01),
        )
        for net, target, tau in pairs:
            for parameter, slow in zip(net.parameters(), target.parameters(), strict=True):
                slow.data.copy_(tau * parameter.data + (1 - tau) * slow.data)

    def _update_cpc(self, anchor: Tensor, positive: Tensor) -> Tensor:
        query = self.critic.encoder(anchor)
        with torch.no_grad():
            key = self.critic_target.encoder(positive)
        logits = query @ (self.W @ key.T)
        logits = logits - logits.max(1).values[:, None]
        loss = F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))
        self.cpc_optimizer.zero_grad()
        loss.backward()
        self.cpc_optimizer.step()
        return loss.detach()


def evaluate(agent: Agent, env: gymnasium.Env[Any, Any], episodes: int) -> float:
    """Mean return of the policy without noise."""
    total = 0.0
    for episode in range(episodes):
        (observation, _), over = env.reset(seed=episode), False
        while not over:
            observation, reward, terminated, truncated, _ = env.step(agent.act(observation, sample=False))
            total, over = total + float(reward), terminated or truncated
    return total / episodes


def main() -> None:
    """Train on tiny-reach; print the returns of the training episodes and of the final policy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000, help="steps of the environment [%(default)s]")
    parser.add_argument("--random_steps", type=int, default=500, help="random steps before learning [%(default)s]")
    parser.add_argument("--seed", type=int, default=1, help="of all random numbers [%(default)s]")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the networks are so small that a second thread would only wait
    torch.manual_seed(arguments.seed)
    generator = np.random.default_rng(arguments.seed)
    env = envs.make("tiny-reach", size=32)  # observations uint8 (9, 32, 32), actions (2,) in [-1, 1]
    agent = Agent(9, 28, 2, filters=16, hidden=128)
    replay = Replay(arguments.steps, (9, 32, 32), 2, torch.device("cpu"))

    print(f"before: return {evaluate(agent, env, 20):.1f}; a blind agent gets about 5, the best about 22")
    returns: deque[float] = deque([0.0], maxlen=21)  # of the latest episodes, including the current one
    observation, _ = env.reset(seed=arguments.seed)
    for step in range(1, arguments.steps + 1):
        learning = step > arguments.random_steps
        action = agent.act(observation, sample=True) if learning else generator.uniform(-1, 1, 2).astype(np.float32)
        following, reward, terminated, truncated, _ = env.step(action)
        replay.add(observation, action, reward, following, terminated)
        returns[-1] += reward
        observation = following
        if terminated or truncated:
            observation, _ = env.reset()
            returns.append(0.0)
        if learning:
            losses = agent.update(replay.sample(48, agent.crop, 0.99, generator))
            if step % 250 == 0:
                shown = ", ".join(f"{name} {loss.item():.2f}" for name, loss in losses.items())
                finished = list(returns)[:-1]
                print(f"{step:5,} steps: return {sum(finished) / len(finished):4.1f}; {shown}", flush=True)
    print(f"after: return {evaluate(agent, env, 20):.1f}")
    env.close()


if __name__ == "__main__":
    main()
