"""Builds a run's agent from its configuration, and loads agent and replay from its checkpoint."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from curl_rl.rl.agent import Agent
from curl_rl.rl.config import RunConfig, read_config
from curl_rl.rl.learner import Learner
from curl_rl.rl.replay import Replay
from curl_rl.runs import checkpoint
from curl_rl.runs import directory as run_directory
from curl_rl.runs.compute import resolve_device, resolve_precision
from curl_rl.runs.console import say
from curl_rl.runs.errors import UserError, one_line
from curl_rl.runs.faults import is_out_of_memory, of_this_run

Built = TypeVar("Built")


def build_agent(
    config: RunConfig, device: torch.device, shape: tuple[int, int, int], action_dim: int, proprioception: int = 0
) -> Agent:
    """Builds an agent with new weights, with ``agent.precision`` resolved for its device.

    Args:
        config: the run's configuration.
        device: the agent's device.
        shape: ``(C, H, W)`` of the environment's observations.
        action_dim: size of the environment's actions.
        proprioception: length of the vector beside the pixels; 0: none.

    Raises:
        ValueError: the configuration does not fit the observations, or (a UserError) the device does not support the
            precision.
    """
    precision = resolve_precision(config.agent.precision, device)
    agent = replace(config.agent, precision=precision)
    return Agent(shape, action_dim, agent, config.objectives, proprioception=proprioception).to(device)


def load_agent(directory: Path | str, device: str = "auto") -> tuple[Agent, RunConfig, int]:
    """The agent of a run, its configuration, and its number of training frames. Does not change the run.

    Raises:
        UserError: the directory has no run, no intact checkpoint or no agent, or the device is missing.
    """
    directory = Path(directory)
    config = _configuration(directory, device)
    # Playing needs no replay, which may have been left out of a copy.
    agent, state = _newest(directory, lambda state: _agent_of(config, state), incomplete=True)
    run_directory.say_if_edited(directory, state.get("settings"), config.schema.lasting(config))
    return agent, config, state["progress"]["frames"]


def load_learner(directory: Path | str, device: str = "auto") -> tuple[Learner, RunConfig]:
    """The agent of a run with its replay, ready to sample and learn. Does not change the run.

    Its generators are seeded with the run's seed; they do not continue the run's random numbers.

    Raises:
        UserError: as :func:`load_agent`, or the replay does not fit into memory or is damaged.
    """
    directory = Path(directory)
    config = _configuration(directory, device)
    on = resolve_device(config.device)

    def both(state: dict[str, Any]) -> tuple[Agent, Replay]:
        agent, manifest = _agent_of(config, state), state["replay"]
        replay = Replay(
            config.replay,
            manifest["observation_shape"],
            manifest["action_dim"],
            stack=manifest["stack"],
            device=on,
            directory=Path(tempfile.gettempdir()),  # the run's own may be full or read-only
            streams=config.training.environments,
            proprioception=_proprioception(manifest),
        )
        replay.restore(directory / run_directory.REPLAY_SEGMENTS, manifest)
        return agent, replay

    try:
        (agent, replay), state = _newest(directory, both)
        run_directory.say_if_edited(directory, state.get("settings"), config.schema.lasting(config))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(f"{on} has no room for the replay: {one_line(error)}") from None
    generators = (torch.Generator(place).manual_seed(config.seed) for place in (on, replay.storage_device))
    return Learner(agent, replay, *generators), config


def _configuration(directory: Path, device: str) -> RunConfig:
    """A run's configuration, with this device."""
    run_directory.check_kind(directory, "agent")
    return replace(read_config(directory / run_directory.CONFIG), device=str(resolve_device(device)))


def _newest(
    directory: Path, built: Callable[[dict[str, Any]], Built], *, incomplete: bool = False
) -> tuple[Built, dict[str, Any]]:
    """What ``built`` makes of the newest checkpoint that it can use, and that checkpoint's state."""
    made: list[Built] = []

    def build(state: dict[str, Any]) -> None:
        with of_this_run():
            made.append(built(state))

    try:
        checkpoints = directory / run_directory.CHECKPOINTS
        found = checkpoint.load_newest(checkpoints, usable=build, read_only=True, incomplete=incomplete)
    except (ValueError, OSError) as error:
        raise UserError(one_line(error)) from None
    if found is None:
        raise UserError(f"{directory} has no checkpoint yet")
    return made[-1], found[1]


def _agent_of(config: RunConfig, state: dict[str, Any]) -> Agent:
    manifest = state["replay"]
    shape, device = tuple(manifest["observation_shape"]), resolve_device(config.device)
    try:
        resolve_precision(config.agent.precision, device)
    except UserError:
        # Trained on another machine. Playing, unlike resuming, may change the precision; float32 is the closest.
        say(f"the agent was trained in {config.agent.precision}, which this device does not support: using float32")
        config = replace(config, agent=replace(config.agent, precision="float32"))
    agent = build_agent(config, device, shape, manifest["action_dim"], _proprioception(manifest))
    agent.load_training_state(state["agent"])
    return agent


def _proprioception(manifest: dict[str, Any]) -> int:
    """The length of the vector beside the pixels, of which older manifests know nothing."""
    length: int = manifest.get("proprioception", 0)
    return length
