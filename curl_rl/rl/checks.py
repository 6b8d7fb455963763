"""Checks that a run is possible as configured, before touching any files of this or an earlier run."""

from __future__ import annotations

import math

import torch

from curl_rl.objectives import DataSpec
from curl_rl.rl.agent import Agent
from curl_rl.rl.config import RunConfig
from curl_rl.rl.contained import EnvironmentFault, contained
from curl_rl.rl.learner import check_capture
from curl_rl.rl.loading import build_agent
from curl_rl.rl.observations import observation_spec
from curl_rl.rl.replay import replay_bytes
from curl_rl.rl.workers import Environment, pixel_spaces
from curl_rl.runs.compute import resolve_precision
from curl_rl.runs.directory import check_room
from curl_rl.runs.errors import UserError, one_line
from curl_rl.runs.seeds import derived_seed
from curl_rl.runs.storage import choose_storage


def check_device(config: RunConfig, device: torch.device) -> None:
    """Checks that the device supports the run, before an earlier run is set aside.

    Raises:
        UserError: the device does not support the precision, or the update cannot be captured.
    """
    resolve_precision(config.agent.precision, device)
    if config.compute.capture:
        check_capture(device, "device" if config.replay.storage == "auto" else config.replay.storage)


def check_environment(
    config: RunConfig, environment: Environment, device: torch.device, *, fresh: bool = False
) -> None:
    """Checks the run against its environment, before anything is written or set aside.

    Args:
        config: the run's configuration.
        environment: one of its environments.
        device: the device that trains the agent.
        fresh: whether an earlier run in the directory will be set aside.

    Raises:
        UserError: the agent or the replay does not fit the environment, the environment does not return what it
            declares or has no limit where the run sets one, the replay does not fit into memory, or the checkpoints do
            not fit on the disk.
    """
    shape, action_dim = pixel_spaces(environment)
    proprioception = observation_spec(environment.observation_space).proprioception
    if (wanted := config.environment.proprioception) and not proprioception:
        got = wanted if wanted == "all" else list(wanted)
        raise UserError(f"environment.proprioception must be left out, got {got}: the environment has pixels only")
    if shape[0] % config.environment.stack:
        raise UserError(f"environment.stack {config.environment.stack} does not divide the {shape[0]} channels")
    _check_first_observation(environment, config.seed)
    _check_limit(config, environment)
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            agent = build_agent(config, torch.device("meta"), shape, action_dim, proprioception)
            if agent.objective is not None:
                data = DataSpec(action_dim=action_dim)
                agent.objective.try_out(agent.encoder.feature_spec, config.agent.batch_size, data)
    except ValueError as error:
        raise UserError(one_line(error)) from None
    steps, count = getattr(environment, "max_episode_steps", None), config.training.environments
    if steps is not None and config.replay.capacity < count * steps:
        episodes = "an episode" if count == 1 else f"{count} episodes"
        raise UserError(
            f"replay.capacity {config.replay.capacity} is smaller than {episodes} of {config.env}: {count * steps} "
            "agent steps"
        )
    needed = replay_bytes(
        config.replay.capacity,
        shape,
        action_dim,
        stack=config.environment.stack,
        streams=config.training.environments,
        proprioception=proprioception,
    )
    folder = next(path for path in (config.directory, *config.directory.absolute().parents) if path.is_dir())
    try:
        storage = choose_storage(config.replay.storage, needed, device, folder)
    except (ValueError, OSError) as error:
        raise UserError(one_line(error)) from None
    if config.compute.capture:
        check_capture(device, storage)
    needed = _bytes_to_save(config, agent, shape)
    check_room(config.directory, needed, "lower replay.capacity, with --fresh if the run has begun", fresh=fresh)


def _bytes_to_save(config: RunConfig, agent: Agent, shape: tuple[int, int, int]) -> int:
    """Approximate disk space for the whole run's checkpoints."""
    transitions = min(config.replay.capacity, math.ceil(config.frames / config.environment.action_repeat))
    channels, height, width = shape
    networks = sum(value.nbytes for value in agent.state_dict().values())
    # Adam keeps two numbers per weight; all kept checkpoints still exist while another is written.
    networks *= 3 * (config.checkpoint.keep + 1)
    step = (channels // config.environment.stack) * height * width + 4 * agent.proprioception
    return transitions * step + networks


def remark_on_endless(environment: object, name: str, setting: str) -> str | None:
    """A line about an environment that states no time limit, or None if it states one.

    Args:
        environment: ``max_episode_steps`` is its limit, in agent steps.
        name: its name.
        setting: the setting that limits its episodes.
    """
    if getattr(environment, "max_episode_steps", None) is not None:
        return None
    return f"{name} states no time limit: if an episode of it may never end, set {setting}, in environment steps"


def _check_first_observation(environment: Environment, seed: int) -> None:
    try:
        contained(lambda: environment).reset(seed=derived_seed(seed, "evaluation episode"))
    except (UserError, EnvironmentFault) as error:
        raise UserError(one_line(error)) from error
    except Exception as error:  # an environment is user code and may raise any exception
        raise UserError(f"the environment's reset raised {type(error).__name__}: {one_line(error)}") from error


def _check_limit(config: RunConfig, environment: Environment) -> None:
    """Refuses a limit that the environment, made by the caller of :func:`~curl_rl.rl.training.train`, ignores."""
    wanted, e = config.environment.max_episode_steps, config.environment
    if wanted is None:
        return
    steps = getattr(environment, "max_episode_steps", None)
    if steps is None or steps > math.ceil(wanted / e.action_repeat):
        limit = "none" if steps is None else f"{steps} agent steps"
        raise UserError(
            f"environment.max_episode_steps must be the limit of the environment, got {wanted}, and the environment "
            f"states {limit} as its max_episode_steps: make it with the same limit"
        )
