#!/usr/bin/env python
"""Measure whether the initial W saturates the contrastive softmax, row by row, before the first update.

    python scripts/measure_similarity.py --env cheetah-run cartpole-swingup

Uses frames of a random policy, two crops of each, and an untrained encoder and its copy as in the first update of the
preset `curl`. For each initialization of W and each query (row): the logits' standard deviation, the largest softmax
probability, and the accuracy. "independent" uses normalized Gaussian embeddings of the same size instead, which have
nothing in common. During training every run logs the same quantities: objective/logits_std, objective/confidence,
objective/accuracy.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from torch import Tensor

import envs
from curl_rl.augment import random_crop
from curl_rl.commands.environments import make_configured
from curl_rl.losses import bilinear_similarity, contrastive_accuracy, info_nce
from curl_rl.objectives import Curl, CurlConfig, FeatureSpec
from curl_rl.rl.agent import Agent
from curl_rl.rl.config import RunConfig, load_preset
from curl_rl.runs.command_line import command_parser, refusals
from envs.rendering import RenderingUnavailable


def main() -> int:
    """Reads the command line, measures, and prints a table."""
    parser = command_parser(__doc__)
    parser.add_argument("--env", nargs="+", default=["cheetah-run", "cartpole-swingup"], help="tasks [%(default)s]")
    parser.add_argument("--seed", type=int, default=1, help="of frames, crops, encoder and W [%(default)s]")
    arguments = parser.parse_args()
    print("| embeddings | start of W | loss | accuracy | logits' std by row: mean (min to max) | confidence by row |")
    print("| --- | --- | --- | --- | --- | --- |")
    with refusals(parser, RenderingUnavailable):
        for env in arguments.env:
            torch.manual_seed(arguments.seed)
            config = load_preset("curl", env)
            report(f"{env}, untrained encoder", *embeddings(config, arguments.seed))
    torch.manual_seed(arguments.seed)
    shape = (config.agent.batch_size, config.agent.encoder.latent)
    report("independent", *(torch.nn.functional.layer_norm(torch.randn(shape), shape[1:]) for _ in range(2)))
    return 0


def embeddings(config: RunConfig, seed: int) -> tuple[Tensor, Tensor]:
    """Queries and keys ``(B, D)`` of one batch of a random policy's observations."""
    env = make_configured(envs.make, config.env, config.environment)
    rng = np.random.default_rng(seed)
    observations: list[np.ndarray] = []
    over = True
    while len(observations) < config.training.random_steps:
        if over:
            env.reset(seed=int(rng.integers(2**32)))
        assert env.action_space.shape is not None
        action = rng.uniform(-1, 1, env.action_space.shape).astype(np.float32)
        observation, _, terminated, truncated, _ = env.step(action)
        over = terminated or truncated
        observations.append(observation)
    env.close()
    agent = Agent(observations[0].shape, len(action), config.agent, config.objectives)
    drawn = rng.choice(len(observations), config.agent.batch_size, replace=False)
    batch = torch.from_numpy(np.stack([observations[i] for i in drawn]))
    generator = torch.Generator().manual_seed(seed)
    crops = [random_crop(batch, config.agent.crop, generator) for _ in range(2)]
    with torch.no_grad():
        return agent.encoder(crops[0]), agent.target_encoder(crops[1])


@torch.no_grad()
def report(name: str, query: Tensor, key: Tensor) -> None:
    """Prints one line of the table for each initialization of W."""
    for start in ("uniform", "identity"):
        objective = Curl(FeatureSpec(query.shape[1], (1, 1, 1)), CurlConfig(similarity_init=start))
        logits = bilinear_similarity(query, objective.W, key)
        deviation, confidence = logits.std(1), logits.softmax(1).max(1).values
        print(
            f"| {name} | {start} | {info_nce(logits):.2f} | {contrastive_accuracy(logits):.3f} "
            f"| {deviation.mean():.2f} ({deviation.min():.2f} to {deviation.max():.2f}) "
            f"| {confidence.mean():.3f} ({confidence.min():.3f} to {confidence.max():.3f}) |"
        )


if __name__ == "__main__":
    raise SystemExit(main())
