"""Record what an environment shows, with the physical state behind each frame, into a folder.

    python scripts/record_frames.py --env cartpole-swingup --agent_steps 10000 --out frames/cartpole
    python scripts/record_frames.py --policy runs/cartpole-swingup/cpu/seed1 --agent_steps 10000 --out frames/trained
    python scripts/pretrain_vision.py --data frames/cartpole --preset frames      # learns from them

One frame is recorded to an agent step. The same command goes on with a recording that was stopped, or makes it longer.
The last episode of a finished recording is cut at --agent_steps; made longer, it is recorded again, whole, in place of
the cut one. Nothing else is ever overwritten.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from curl_rl.commands.environments import MakeEnvironment, make_configured
from curl_rl.recordings.recorder import Recordable, open_recording, random_policy, record
from curl_rl.recordings.store import Recording
from curl_rl.rl.acting import agent_policy
from curl_rl.rl.agent import Agent
from curl_rl.rl.config import EnvironmentConfig, load_preset
from curl_rl.rl.loading import load_agent
from curl_rl.runs.command_line import command_parser, refusals
from curl_rl.runs.errors import UserError
from curl_rl.runs.signals import stop_requests


class Player(NamedTuple):
    """Who acts, and in which environment."""

    env: str
    shown: EnvironmentConfig
    policy: str
    """What the recording says of the policy."""
    agent: Agent | None = None
    """None: actions are random."""


def main(argv: Sequence[str], make: MakeEnvironment[Recordable], *unavailable: type[Exception]) -> int:
    """Read the command line, play and record; the exit code says how it ended.

    Args:
        argv: the command's arguments.
        make: makes the environment, which tells the physical state behind its frames.
        unavailable: what it raises, ValueError aside, where this machine cannot have that environment.
    """
    parser = command_parser(__doc__)
    parser.add_argument("--env", help="environment, as train_agent.py takes it [that of the run, if a run acts]")
    parser.add_argument("--policy", default="random", help="who acts: random, or the directory of a run [%(default)s]")
    parser.add_argument("--actions", choices=("sampled", "mean"), help="of a run [sampled]")
    parser.add_argument(
        "--agent_steps", type=int, default=10_000, help="frames in the end, one to an agent step [%(default)s]"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to record into")
    parser.add_argument("--seed", type=int, default=1, help="of episodes and actions [%(default)s]")
    parser.add_argument(
        "--preset",
        help="of train_agent.py, whose size, quality and action repeat are taken where no run acts [cpu]",
    )
    parser.add_argument("--size", type=int, help="height and width of a frame, in pixels")
    parser.add_argument("--quality", choices=("faithful", "fast"), help="how frames are drawn")
    parser.add_argument("--action_repeat", type=int, help="environment steps to an agent step")
    parser.add_argument("--device", default="auto", help="where a run's policy acts: auto, cpu, cuda or cuda:<n>")
    arguments = parser.parse_args(argv)
    if arguments.agent_steps < 1:
        parser.error(f"--agent_steps must be at least 1, got {arguments.agent_steps}")
    if not 0 <= arguments.seed < 2**32:
        parser.error(f"--seed must be 0 or more and below 2**32, got {arguments.seed}")
    with refusals(parser, *unavailable):
        if arguments.policy == "random":
            return _record(arguments, _random_player(arguments), make)
        return _record(arguments, _trained_player(arguments), make)


def _random_player(arguments: argparse.Namespace) -> Player:
    """Random actions, in the environment that the command line names, as a preset shows it."""
    if arguments.env is None:
        raise UserError("--env is needed where no run acts, such as --env cartpole-swingup")
    if arguments.device != "auto":
        raise UserError(
            f"--device {arguments.device} is where a run acts, and none does: leave it out, or name --policy RUN"
        )
    if arguments.actions is not None:
        raise UserError(f"--actions {arguments.actions} is of a run, and none acts: leave it out, or name --policy RUN")
    shown = load_preset(arguments.preset or "cpu", arguments.env).environment
    return Player(arguments.env, _with_flags(shown, arguments), "random")


def _trained_player(arguments: argparse.Namespace) -> Player:
    """A run, in its own environment."""
    run = arguments.policy
    if arguments.preset is not None:
        raise UserError(f"--preset {arguments.preset}: {run} plays in its own environment, leave it out")
    agent, config, trained = load_agent(Path(run), arguments.device)
    if arguments.env not in (None, config.env):
        raise UserError(f"--env {arguments.env} is not what {run} has learnt: {config.env} is")
    shown = config.environment
    if _with_flags(shown, arguments) != shown:
        raise UserError(
            f"--size, --quality and --action_repeat are decided by {run}: {shown.size}, {shown.quality} "
            f"and {shown.action_repeat}"
        )
    return Player(config.env, shown, f"{run} at {trained} frames, {arguments.actions or 'sampled'} actions", agent)


def _with_flags(shown: EnvironmentConfig, arguments: argparse.Namespace) -> EnvironmentConfig:
    """What the preset or the run shows of its environment, with the flags laid over it."""
    flags = {name: getattr(arguments, name) for name in ("size", "quality", "action_repeat")}
    return replace(shown, **{name: value for name, value in flags.items() if value is not None})


def _record(arguments: argparse.Namespace, player: Player, make: MakeEnvironment[Recordable]) -> int:
    """Plays until the folder holds as many frames as are asked for; returns the exit code."""
    out, wanted, shown = arguments.out, arguments.agent_steps, player.shown
    env = make_configured(make, player.env, shown)
    try:
        recording = Recording(
            env=player.env,
            size=shown.size,
            action_repeat=shown.action_repeat,
            quality=shown.quality,
            seed=arguments.seed,
            policy=player.policy,
            state_names=env.state_names,
            action_size=len(env.action_space.sample()),
        )
        if player.agent is None:
            policy = random_policy(recording.action_size)
        else:
            policy = agent_policy(player.agent, sampled=arguments.actions != "mean")
        with open_recording(out, recording) as writer, stop_requests() as stop:
            print(
                f"{out}: {writer.frames:,} of {wanted:,} frames of {player.env} are there; {shown.action_repeat} "
                "environment steps to a frame"
            )
            with tqdm(total=wanted, initial=writer.frames, unit="frame", disable=None) as bar:
                done = record(env, policy, writer, frames=wanted, stop=lambda: bool(stop), after_frame=bar.update)
    finally:
        env.close()
    print(f"{out}: {writer.frames:,} frames of {writer.episodes:,} episodes")
    if not done:
        assert stop.signal_number is not None
        print("stopped after the last whole episode; the same command goes on")
        return 128 + stop.signal_number
    return 0
