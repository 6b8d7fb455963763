#!/usr/bin/env python
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
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tqdm import tqdm

import envs
from curl_rl.recordings.recorder import random_policy, record
from curl_rl.recordings.store import FrameWriter, Recording
from curl_rl.rl.acting import agent_policy
from curl_rl.rl.config import EnvironmentConfig, load_preset
from curl_rl.rl.loading import load_agent
from curl_rl.runs.command_line import command_parser, refusals
from curl_rl.runs.errors import UserError
from curl_rl.runs.lock import lock_run
from curl_rl.runs.signals import stop_requests
from envs.rendering import RenderingUnavailable


def main() -> int:
    """Read the command line, play and record; the exit code says how it ended."""
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
    arguments = parser.parse_args()
    if arguments.agent_steps < 1:
        parser.error(f"--agent_steps must be at least 1, got {arguments.agent_steps}")
    if not 0 <= arguments.seed < 2**32:
        parser.error(f"--seed must be 0 or more and below 2**32, got {arguments.seed}")
    with refusals(parser, RenderingUnavailable):
        return run(arguments)


def run(arguments: argparse.Namespace) -> int:
    """Record what the arguments ask for; returns the exit code."""
    agent = None
    if arguments.policy == "random":
        if arguments.env is None:
            raise UserError("--env is needed where no run acts, such as --env cartpole-swingup")
        if arguments.device != "auto":
            raise UserError(
                f"--device {arguments.device} is where a run acts, and none does: leave it out, or name --policy RUN"
            )
        if arguments.actions is not None:
            raise UserError(
                f"--actions {arguments.actions} is of a run, and none acts: leave it out, or name --policy RUN"
            )
        name, policy_name = arguments.env, "random"
        shown = load_preset(arguments.preset or "cpu", name).environment
    else:
        if arguments.preset is not None:
            raise UserError(
                f"--preset {arguments.preset}: {arguments.policy} plays in its own environment, leave it out"
            )
        agent, config, trained = load_agent(Path(arguments.policy), arguments.device)
        name, shown = config.env, config.environment
        actions = arguments.actions or "sampled"
        policy_name = f"{arguments.policy} at {trained} frames, {actions} actions"
        if arguments.env not in (None, name):
            raise UserError(f"--env {arguments.env} is not what {arguments.policy} has learnt: {name} is")
    e = changed(shown, arguments)
    if agent is not None and e != shown:
        raise UserError(
            f"--size, --quality and --action_repeat are decided by {arguments.policy}: {shown.size}, {shown.quality} "
            f"and {shown.action_repeat}"
        )

    env = envs.make(name, size=e.size, stack=e.stack, action_repeat=e.action_repeat, quality=e.quality)
    try:
        recording = Recording(
            env=name,
            size=e.size,
            action_repeat=e.action_repeat,
            quality=e.quality,
            seed=arguments.seed,
            policy=policy_name,
            state_names=env.state_names,
            action_size=len(env.action_space.sample()),
        )
        policy = (
            random_policy(recording.action_size)
            if agent is None
            else agent_policy(agent, sampled=arguments.actions != "mean")
        )
        FrameWriter(arguments.out, recording)  # refuses a folder before anything is written into it
        with lock_run(arguments.out), stop_requests() as stop:
            writer = FrameWriter(arguments.out, recording)
            wanted, before = arguments.agent_steps, writer.frames
            print(
                f"{arguments.out}: {before:,} of {wanted:,} frames of {name} are there; {e.action_repeat} environment "
                "steps to a frame"
            )
            with tqdm(total=wanted, initial=before, unit="frame", disable=None) as bar:
                done = record(env, policy, writer, frames=wanted, stop=lambda: bool(stop), after_frame=bar.update)
    finally:
        env.close()
    print(f"{arguments.out}: {writer.frames:,} frames of {writer.episodes:,} episodes")
    if not done:
        assert stop.signal_number is not None
        print("stopped after the last whole episode; the same command goes on")
        return 128 + stop.signal_number
    return 0


def changed(shown: EnvironmentConfig, arguments: argparse.Namespace) -> EnvironmentConfig:
    """What the preset or the run shows of its environment, with the flags laid over it."""
    flags = {name: getattr(arguments, name) for name in ("size", "quality", "action_repeat")}
    return replace(shown, **{name: value for name, value in flags.items() if value is not None})


if __name__ == "__main__":
    raise SystemExit(main())
