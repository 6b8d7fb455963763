"""Record an environment's frames, with the physical state of each frame, into a folder.

    python scripts/record_frames.py --env cartpole-swingup --agent_steps 10000 --out frames/cartpole
    python scripts/record_frames.py --policy runs/cartpole-swingup/cpu/seed1 --agent_steps 10000 --out frames/trained
    python scripts/pretrain_vision.py --data frames/cartpole --preset frames      # learns from them

Records one frame per agent step. The same command resumes a stopped recording, or extends it to a larger --agent_steps.
The last episode of a finished recording is cut at --agent_steps; extending the recording replaces it with the whole
episode. Nothing else is ever overwritten.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from curl_rl.commands.environments import MakeEnvironment, camera_flag, make_configured
from curl_rl.recordings.recorder import Recordable, open_recording, random_policy, record
from curl_rl.recordings.store import RecordedFrames, Recording
from curl_rl.rl.acting import agent_policy
from curl_rl.rl.agent import Agent
from curl_rl.rl.checks import remark_on_endless
from curl_rl.rl.config import EnvironmentConfig, load_preset
from curl_rl.rl.contained import EnvironmentFault, contained
from curl_rl.rl.loading import load_agent
from curl_rl.rl.observations import observation_spec
from curl_rl.runs.command_line import command_parser, refusals
from curl_rl.runs.console import counted, say
from curl_rl.runs.errors import UserError
from curl_rl.runs.settings import is_same_place
from curl_rl.runs.signals import stop_requests


class Player(NamedTuple):
    """A policy and its environment."""

    env: str
    shown: EnvironmentConfig
    policy: str
    """Description of the policy, for the recording."""
    agent: Agent | None = None
    """None for random actions."""


def main(argv: Sequence[str], make: MakeEnvironment[Recordable], *unavailable: type[Exception]) -> int:
    """Reads the command line, plays and records, and returns the exit code.

    Args:
        argv: the command's arguments.
        make: makes the environment, which provides the physical state of its frames.
        unavailable: exceptions that ``make`` raises, besides ValueError, if this machine cannot run the environment.
    """
    parser = command_parser(__doc__)
    parser.add_argument("--env", help="environment, as for train_agent.py [that of the run, with --policy RUN]")
    parser.add_argument(
        "--policy", type=os.path.expanduser, default="random", help="random, or the directory of a run [%(default)s]"
    )
    parser.add_argument("--actions", choices=("sampled", "mean"), help="actions of a run's policy [sampled]")
    parser.add_argument(
        "--agent_steps", type=int, default=10_000, help="total number of frames, one per agent step [%(default)s]"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to record into")
    parser.add_argument("--seed", type=int, default=1, help="of episodes and actions [%(default)s]")
    parser.add_argument(
        "--preset",
        help="preset of train_agent.py with the defaults of the flags below, for a random policy [cpu]",
    )
    parser.add_argument("--size", type=int, help="height and width of a frame, in pixels")
    parser.add_argument("--quality", choices=("faithful", "fast"), help="rendering quality")
    parser.add_argument("--action_repeat", type=int, help="environment steps per agent step")
    parser.add_argument("--camera", type=camera_flag, help="number or name of the camera [the task's usual one]")
    parser.add_argument("--max_episode_steps", type=int, help="environment steps after which an episode is truncated")
    parser.add_argument("--device", default="auto", help="device of a run's policy: auto, cpu, cuda or cuda:<n>")
    arguments = parser.parse_args(argv)
    if arguments.agent_steps < 1:
        parser.error(f"--agent_steps must be at least 1, got {arguments.agent_steps}")
    if not 0 <= arguments.seed < 2**32:
        parser.error(f"--seed must be 0 or more and below 2**32, got {arguments.seed}")
    with refusals(parser, EnvironmentFault, *unavailable):
        if arguments.policy == "random":
            return _record(arguments, _random_player(arguments), make)
        return _record(arguments, _trained_player(arguments), make)


def _random_player(arguments: argparse.Namespace) -> Player:
    """Random actions in the environment named on the command line, with a preset's view of it."""
    if arguments.env is None:
        raise UserError("--env is required for a random policy, such as --env cartpole-swingup")
    if arguments.device != "auto":
        raise UserError(
            f"--device {arguments.device} does not apply to a random policy: leave it out, or add --policy RUN"
        )
    if arguments.actions is not None:
        raise UserError(
            f"--actions {arguments.actions} does not apply to a random policy: leave it out, or add --policy RUN"
        )
    shown = load_preset(arguments.preset or "cpu", arguments.env).environment
    return Player(arguments.env, _with_flags(shown, arguments), "random")


def _trained_player(arguments: argparse.Namespace) -> Player:
    """A run, in its own environment."""
    run = arguments.policy
    if arguments.preset is not None:
        raise UserError(
            f"--preset {arguments.preset} does not apply to {run}, which has its own settings: leave it out"
        )
    agent, config, trained = load_agent(Path(run), arguments.device)
    if arguments.env not in (None, config.env):
        raise UserError(f"--env must be the environment of {run}, {config.env}, got {arguments.env}: leave it out")
    shown = config.environment
    if arguments.max_episode_steps is not None:  # it changes no picture
        shown = replace(shown, max_episode_steps=arguments.max_episode_steps)
    if _with_flags(shown, arguments) != shown:
        raise UserError(
            f"--size, --quality, --action_repeat and --camera must be those of {run}, {shown.size}, {shown.quality}, "
            f"{shown.action_repeat} and {'the usual one' if shown.camera is None else shown.camera}: leave them out"
        )
    policy = _described(run, f" at {trained} frames, {arguments.actions or 'sampled'} actions", arguments.out)
    return Player(config.env, shown, policy, agent)


def _described(run: str, acting: str, out: Path) -> str:
    """The policy's description, with the run's path as an earlier recording in ``out`` spells it."""
    with contextlib.suppress(UserError):
        earlier = RecordedFrames(out).recording.policy
        if earlier.endswith(acting) and is_same_place(earlier.removesuffix(acting), run):
            return earlier
    return f"{run}{acting}"


def _with_flags(shown: EnvironmentConfig, arguments: argparse.Namespace) -> EnvironmentConfig:
    """The preset's or the run's environment settings, overridden by the flags."""
    names = ("size", "quality", "action_repeat", "camera", "max_episode_steps")
    flags = {name: getattr(arguments, name) for name in names}
    return replace(shown, **{name: value for name, value in flags.items() if value is not None})


def _record(arguments: argparse.Namespace, player: Player, make: MakeEnvironment[Recordable]) -> int:
    """Plays until the folder holds the requested number of frames; returns the exit code."""
    out, wanted, shown = arguments.out, arguments.agent_steps, player.shown
    env: Any = contained(lambda: make_configured(make, player.env, shown))  # type: ignore[arg-type]
    try:
        spec = observation_spec(env.observation_space)
        if remark := remark_on_endless(env, player.env, "--max_episode_steps"):
            say(remark)
        recording = Recording(
            env=player.env,
            size=shown.size,
            action_repeat=shown.action_repeat,
            quality=shown.quality,
            seed=arguments.seed,
            policy=player.policy,
            state_names=env.state_names,
            action_size=len(env.action_space.sample()),
            camera=shown.camera,
            max_episode_steps=shown.max_episode_steps,
        )
        if player.agent is None:
            policy = random_policy(recording.action_size)
        else:
            policy = agent_policy(player.agent, sampled=arguments.actions != "mean", spec=spec)
        with open_recording(out, recording) as writer, stop_requests(tell=True) as stop:
            print(
                f"{out}: has {writer.frames:,} of {counted(wanted, 'frame')} of {player.env}; "
                f"{counted(shown.action_repeat, 'environment step')} per frame"
            )
            with tqdm(total=wanted, initial=writer.frames, unit="frame", disable=None) as bar:
                done = record(
                    env,
                    policy,
                    writer,
                    frames=wanted,
                    stop=lambda: bool(stop),
                    after_frame=bar.update,
                    image=spec.image,
                )
    finally:
        env.close()
    print(f"{out}: {counted(writer.frames, 'frame')} of {counted(writer.episodes, 'episode')}")
    if not done:
        assert stop.signal_number is not None
        print("stopped after the last whole episode; the same command resumes")
        return 128 + stop.signal_number
    return 0
