"""An ordinary Soft Actor-Critic loop, and the three lines that add CURL's loss to it.

    python examples/your_sac_with_curl.py            # learns tiny-reach, in under a minute on one CPU core

The lines that end in `# +` add the loss; without them this is an ordinary training loop with the package's encoder. The
critics' optimizer trains the encoder, so it also gets the heads of the loss. docs/auxiliary_loss.md describes what the
loss expects of a loop; your_ppo_with_curl.py has the same for PPO, and that page for DQN.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import curl_rl
import envs

GAMMA, ALPHA, TAU, BATCH = 0.99, 0.02, 0.01, 48
FEATURES, HIDDEN = 32, 128


def mlp(inputs: int, outputs: int) -> nn.Sequential:
    """A two-layer network."""
    return nn.Sequential(nn.Linear(inputs, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, outputs))


class Critics(nn.Module):
    """The encoder and two Q functions of its features."""

    def __init__(self, actions: int) -> None:
        super().__init__()
        shape = curl_rl.EncoderConfig(filters=16, strides=(2, 2, 1), latent=FEATURES)
        self.encoder = curl_rl.PixelEncoder((9, 32, 32), shape)
        self.q1, self.q2 = mlp(FEATURES + actions, 1), mlp(FEATURES + actions, 1)

    def forward(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Both values, ``(B, 1)`` each."""
        both = torch.cat([self.encoder(observation), action], 1)
        return self.q1(both), self.q2(both)


def policy(actor: nn.Module, features: Tensor) -> tuple[Tensor, Tensor]:
    """Actions ``(B, A)`` drawn for features ``(B, D)``, and their log probabilities ``(B, 1)``."""
    mean, log_std = actor(features).chunk(2, 1)
    normal = torch.distributions.Normal(mean, log_std.clamp(-5, 2).exp())
    raw = normal.rsample()
    action = raw.tanh()
    return action, (normal.log_prob(raw) - torch.log(1 - action**2 + 1e-6)).sum(1, keepdim=True)


def main() -> None:
    """Train on tiny-reach; print the returns of the latest episodes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000, help="steps of the environment [%(default)s]")
    parser.add_argument("--random_steps", type=int, default=500, help="random steps before learning [%(default)s]")
    parser.add_argument("--seed", type=int, default=1, help="of all random numbers [%(default)s]")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the networks are so small that a second thread would only wait
    torch.manual_seed(arguments.seed)
    generator = np.random.default_rng(arguments.seed)
    env = envs.make("tiny-reach", size=32)  # observations uint8 (9, 32, 32), actions (2,) in [-1, 1]

    critics, target, actor = Critics(2), Critics(2), mlp(FEATURES, 2 * 2)
    target.load_state_dict(critics.state_dict())
    encoder = critics.encoder
    aux = curl_rl.AuxiliaryLoss(encoder, "curl", pad=4, tau=0.05)  # +
    critic_optimizer = torch.optim.Adam(critics.parameters(), 1e-3)
    critic_optimizer.add_param_group({"params": aux.new_parameters()})  # +
    actor_optimizer = torch.optim.Adam(actor.parameters(), 1e-3)

    print("a blind agent gets a return of about 5, the best about 22")
    buffer: list[tuple[np.ndarray, ...]] = []  # observation, action, reward, next observation, terminated
    returns = [0.0]
    observation, _ = env.reset(seed=arguments.seed)
    for step in range(1, arguments.steps + 1):
        action = generator.uniform(-1, 1, 2).astype(np.float32)
        if step > arguments.random_steps:
            with torch.no_grad():
                action = policy(actor, encoder(torch.as_tensor(observation)[None]))[0][0].numpy()
        following, reward, terminated, truncated, _ = env.step(action)
        numbers = np.array([[reward], [terminated]], np.float32)
        buffer.append((observation, action, numbers[0], following, numbers[1]))
        returns[-1] += reward
        observation = following
        if terminated or truncated:
            observation, _ = env.reset()
            returns.append(0.0)
        if step <= arguments.random_steps:
            continue

        chosen = [buffer[number] for number in generator.integers(len(buffer), size=BATCH)]
        now, actions, rewards, later, done = (torch.as_tensor(np.stack(part)) for part in zip(*chosen, strict=True))
        with torch.no_grad():
            next_action, log_prob = policy(actor, encoder(later))
            value = torch.min(*target(later, next_action)) - ALPHA * log_prob
            goal = rewards + GAMMA * (1 - done) * value
        q1, q2 = critics(now, actions)
        loss = F.mse_loss(q1, goal) + F.mse_loss(q2, goal)
        loss = loss + aux(now)  # +
        critic_optimizer.zero_grad()
        loss.backward()
        critic_optimizer.step()

        action_now, log_prob = policy(actor, encoder(now).detach())
        actor_loss = (ALPHA * log_prob - torch.min(*critics(now, action_now))).mean()
        actor_optimizer.zero_grad()
        actor_loss.backward()
        actor_optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(target.parameters(), critics.parameters(), strict=True):
                slow.lerp_(fast, TAU)
        if step % 250 == 0:
            latest = returns[-21:-1]
            print(f"{step:5,} steps: return {sum(latest) / len(latest):4.1f}; loss {loss.item():.2f}", flush=True)
    env.close()


if __name__ == "__main__":
    main()
