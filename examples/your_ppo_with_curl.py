"""An ordinary PPO loop, and the lines that add CURL's loss to it.

    python examples/your_ppo_with_curl.py            # learns tiny-reach, in a minute or two on one CPU core

The lines that end in `# +` add the loss; without them this is an ordinary training loop. The network is the program's
own and divides its input by 255; for the loss, `ModuleEncoder` does. docs/auxiliary_loss.md describes what the loss
expects of a loop, and has the same for SAC and DQN.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from torch import Tensor, nn

import envs
from curl_rl import AuxiliaryLoss, ModuleEncoder  # +

GAMMA, GAE_LAMBDA, CLIP = 0.9, 0.9, 0.2
REWARD_SCALE = 0.2  # values near 1: otherwise their loss takes the whole of the clipped gradient
ROLLOUT, EPOCHS, MINIBATCH = 500, 4, 64
FEATURES = 64


class ActorCritic(nn.Module):
    """Policy and value on one convolutional network."""

    def __init__(self, actions: int) -> None:
        super().__init__()
        convolutions = nn.Conv2d(9, 16, 4, 4), nn.ReLU(), nn.Conv2d(16, 32, 3, 2), nn.ReLU()
        self.network = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(32 * 3 * 3, FEATURES), nn.Tanh())
        self.mean, self.value = nn.Linear(FEATURES, actions), nn.Linear(FEATURES, 1)
        self.log_std = nn.Parameter(torch.full((actions,), -0.5))

    def forward(self, observation: Tensor) -> tuple[torch.distributions.Normal, Tensor]:
        """The policy's distribution of actions ``(B, A)``, and values ``(B,)``."""
        hidden = self.network(observation / 255)
        return torch.distributions.Normal(self.mean(hidden), self.log_std.exp()), self.value(hidden)[:, 0]


def advantages_of(rewards: Tensor, values: Tensor, ended: Tensor, last_value: Tensor) -> Tensor:
    """Generalized advantage estimation (Schulman et al. 2016, arXiv 1506.02438) of consecutive steps, ``(T,)`` each.

    ``ended`` is 1 where an episode ended; ``last_value`` is the value after the last step.
    """
    following = torch.cat([values[1:], last_value[None]])
    deltas = rewards + GAMMA * (1 - ended) * following - values
    advantages, advantage = torch.empty_like(deltas), torch.zeros(())
    for step in reversed(range(len(deltas))):
        advantage = deltas[step] + GAMMA * GAE_LAMBDA * (1 - ended[step]) * advantage
        advantages[step] = advantage
    return advantages


def main() -> None:
    """Train on tiny-reach; print the returns of the latest episodes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000, help="steps of the environment [%(default)s]")
    parser.add_argument("--rollout", type=int, default=ROLLOUT, help="steps between updates [%(default)s]")
    parser.add_argument("--seed", type=int, default=1, help="of all random numbers [%(default)s]")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the networks are so small that a second thread would only wait
    torch.manual_seed(arguments.seed)
    env = envs.make("tiny-reach", size=32)  # observations uint8 (9, 32, 32), actions (2,) in [-1, 1]

    agent = ActorCritic(2)
    optimizer = torch.optim.Adam(agent.parameters(), 1e-3)
    encoder = ModuleEncoder(agent.network, (9, 32, 32))  # +
    aux = AuxiliaryLoss(encoder, "curl", pad=4, tau=0.05)  # +
    optimizer.add_param_group({"params": aux.new_parameters()})  # +

    print("a blind agent gets a return of about 5, the best about 22")
    returns = [0.0]
    observation, _ = env.reset(seed=arguments.seed)
    for start in range(0, arguments.steps, arguments.rollout):
        steps: list[tuple[Tensor, ...]] = []  # observation, action, its log probability, value, reward, ended
        for _ in range(arguments.rollout):
            now = torch.as_tensor(observation)
            with torch.no_grad():
                policy, value = agent(now[None])
                action = policy.sample()
                log_prob = policy.log_prob(action).sum(1)
            observation, reward, terminated, truncated, _ = env.step(np.asarray(action[0].clamp(-1, 1)))
            returns[-1] += reward
            reward *= REWARD_SCALE
            ended = terminated or truncated
            if truncated:  # by the time limit, which is not part of the task: bootstrap
                with torch.no_grad():
                    reward += GAMMA * agent(torch.as_tensor(observation)[None])[1].item()
            steps.append((now, action[0], log_prob[0], value[0], torch.tensor(reward), torch.tensor(ended)))
            if ended:
                observation, _ = env.reset()
                returns.append(0.0)
        observations, actions, log_probs, values, rewards, ends = map(torch.stack, zip(*steps, strict=True))
        with torch.no_grad():
            last_value = agent(torch.as_tensor(observation)[None])[1][0]
        advantages = advantages_of(rewards.float(), values, ends.float(), last_value)

        for _ in range(EPOCHS):
            for chosen in torch.randperm(len(steps)).split(MINIBATCH):
                policy, value = agent(observations[chosen])
                ratio = (policy.log_prob(actions[chosen]).sum(1) - log_probs[chosen]).exp()
                gain = advantages[chosen]
                gain = (gain - gain.mean()) / (gain.std() + 1e-8)
                policy_loss = -torch.min(ratio * gain, ratio.clamp(1 - CLIP, 1 + CLIP) * gain).mean()
                value_loss = (value - advantages[chosen] - values[chosen]).pow(2).mean()
                loss = policy_loss + 0.5 * value_loss
                loss = loss + 0.1 * aux(observations[chosen])  # +
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
                optimizer.step()
        latest = returns[-21:-1]
        played = start + arguments.rollout
        print(f"{played:6,} steps: return {sum(latest) / max(len(latest), 1):4.1f}; loss {loss.item():.2f}", flush=True)
    env.close()


if __name__ == "__main__":
    main()
