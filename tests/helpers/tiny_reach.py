"""A run on tiny-reach, started as from the command line."""

from __future__ import annotations

from pathlib import Path

import envs
from curl_rl.commands.environments import make_configured
from curl_rl.rl.config import parse_command_line
from curl_rl.rl.training import train

_SMALL = (
    "--env tiny-reach --preset cpu --device cpu --seed 4 --environment.size 12 --agent.crop 10 --agent.batch_size 4 "
    "--agent.hidden 8 --agent.encoder.filters 2 --agent.encoder.strides [2] --agent.encoder.latent 4 "
    "--agent.precision float32 --training.random_steps 20 --replay.capacity 100 --evaluation.every 0"
)


def train_on_tiny_reach(directory: Path, flags: str) -> Path:
    """A run of a few seconds with seed 4; ``flags`` of train_agent.py override those that make it small."""
    line = f"{_SMALL} {flags} --run {directory}"
    config, *_ = parse_command_line(line.split(), program="train_agent.py", description="")
    return train(config, lambda: make_configured(envs.make, config.env, config.environment))
