"""The agent of a run: as its configuration describes it, and as its checkpoint holds it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from curl_rl import checkpoint, run_directory
from curl_rl.agent import Agent
from curl_rl.compute import resolve_device, resolve_precision
from curl_rl.config import RunConfig, read_config
from curl_rl.errors import UserError, one_line
from curl_rl.settings import read_yaml


def build_agent(config: RunConfig, device: torch.device, shape: tuple[int, int, int], action_dim: int) -> Agent:
    """An agent with new weights, computing in what ``agent.precision`` means on its device.

    Args:
        config: the run's.
        device: where it is to be.
        shape: ``(C, H, W)`` of the environment's observations.
        action_dim: size of its actions.

    Raises:
        ValueError: the configuration does not fit the observations, or (a UserError) the precision the device.
    """
    precision = resolve_precision(config.agent.precision, device)
    return Agent(shape, action_dim, replace(config.agent, precision=precision), config.objectives).to(device)


def load_agent(directory: Path, device: str = "auto") -> tuple[Agent, RunConfig, int]:
    """The agent of a run, its configuration, and how many frames it was trained on. Nothing in the run is changed.

    Raises:
        UserError: there is no run or no whole checkpoint, it trained no agent, or the device is not there.
    """
    path = directory / run_directory.CONFIG
    if not path.is_file():
        raise UserError(f"{directory} is no run: it has no {run_directory.CONFIG}")
    if "method" in read_yaml(path):
        raise UserError(f"{directory} is a run of pretraining: it has an encoder and no policy")
    config, on = read_config(path), resolve_device(device)
    try:
        found = checkpoint.load_newest(directory / run_directory.CHECKPOINTS, read_only=True)
    except (ValueError, OSError) as error:
        raise UserError(one_line(error)) from None
    if found is None:
        raise UserError(f"{directory} has no checkpoint yet")
    _, state = found
    manifest, config = state["replay"], replace(config, device=str(on))
    agent = build_agent(config, on, tuple(manifest["observation_shape"]), manifest["action_dim"])
    agent.load_training_state(state["agent"])
    return agent, config, state["progress"]["frames"]
