"""Evaluate a trained run, and record a video.

    python scripts/evaluate_agent.py runs/cheetah-run/cpu/seed1
    python scripts/evaluate_agent.py runs/cheetah-run/cpu/seed1 --episodes 30 --gif cheetah.gif --json score.json
    python scripts/evaluate_agent.py runs/cheetah-run/cpu/seed1 --episodes 1 --gif small.gif --gif_every 2

The policy is deterministic and sees center crops. The run is not changed; --gif records the first episode, and --sheet
shows the evaluations during training below each other in one picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from curl_rl.commands.environments import MakeEnvironment, make_configured
from curl_rl.report.curves import returns_of
from curl_rl.report.page import png
from curl_rl.report.runs import read_run
from curl_rl.report.sheet import evaluation_sheet
from curl_rl.rl.agent import Agent
from curl_rl.rl.checks import remark_on_endless
from curl_rl.rl.contained import EnvironmentFault, contained
from curl_rl.rl.evaluation import Evaluation, evaluate
from curl_rl.rl.loading import load_agent
from curl_rl.rl.workers import Environment
from curl_rl.runs.command_line import check_writable, command_parser, refusals
from curl_rl.runs.console import counted, say
from curl_rl.runs.errors import UserError
from curl_rl.runs.files import write_durably, write_json
from curl_rl.runs.logger import write_gif


def main(argv: Sequence[str], make: MakeEnvironment[Environment], *unavailable: type[Exception]) -> int:
    """Reads the command line, plays, and prints the score.

    Args:
        argv: the command's arguments.
        make: makes the run's environment.
        unavailable: exceptions that ``make`` raises, besides ValueError, if this machine cannot run the environment.
    """
    parser = command_parser(__doc__)
    parser.add_argument("run", type=Path, help="directory of the run")
    parser.add_argument("--episodes", type=int, default=10, help="episodes to play [%(default)s]")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the episodes; the run's own seed repeats its evaluations"
    )
    parser.add_argument(
        "--max_episode_steps", type=int, help="environment steps after which an episode is truncated [as in training]"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<n> [%(default)s]")
    parser.add_argument("--gif", type=Path, help="record the first episode here")
    parser.add_argument(
        "--gif_every", type=int, default=1, help="keep every n-th picture of it: a smaller file, as long [%(default)s]"
    )
    parser.add_argument("--sheet", type=Path, help="picture of the run's evaluations so far, from its videos (.png)")
    parser.add_argument("--json", type=Path, help="write the returns here as well")
    arguments = parser.parse_args(argv)
    if arguments.episodes < 1:
        parser.error(f"--episodes must be at least 1, got {arguments.episodes}")
    if arguments.seed < 0:
        parser.error(f"--seed must be 0 or more, got {arguments.seed}")
    if arguments.max_episode_steps is not None and arguments.max_episode_steps < 1:
        parser.error(f"--max_episode_steps must be at least 1, got {arguments.max_episode_steps}")
    if arguments.gif_every < 1:
        parser.error(f"--gif_every must be at least 1, got {arguments.gif_every}")
    if arguments.gif_every > 1 and arguments.gif is None:
        parser.error("--gif_every needs --gif FILE")
    with refusals(parser, EnvironmentFault, *unavailable):
        agent, config, frames = load_agent(arguments.run, arguments.device)
        # Playing takes minutes: refuse unwritable outputs first.
        for path in filter(None, (arguments.gif, arguments.json, arguments.sheet)):
            check_writable(path)
        if arguments.sheet:
            _write_sheet(arguments.run, arguments.sheet)
        shown = config.environment
        if arguments.max_episode_steps is not None:
            shown = replace(shown, max_episode_steps=arguments.max_episode_steps)
        env = contained(lambda: make_configured(make, config.env, shown))
        if remark := remark_on_endless(env, config.env, "--max_episode_steps"):
            say(remark)
        record = arguments.gif is not None
        result = _play(agent, env, episodes=arguments.episodes, seed=arguments.seed, record=record)
        metrics = result.metrics()
        print(
            f"{arguments.run}: {counted(frames, 'frame')} of training; "
            f"return over {counted(arguments.episodes, 'episode')}: mean {metrics['evaluation/return_mean']:.1f}, "
            f"median {metrics['evaluation/return_median']:.1f}, "
            f"standard deviation {metrics['evaluation/return_std']:.1f}"
        )
        if arguments.json:
            row = {"run": str(arguments.run), "frames": frames, "seed": arguments.seed, "returns": result.returns}
            write_json(arguments.json, {**row, **metrics})
        if result.pictures is not None:
            every, last = arguments.gif_every, len(result.pictures) - 1  # the last picture has the episode's return
            write_gif(arguments.gif, result.pictures[last % every :: every], result.pictures_per_second / every)
            print(f"video: {arguments.gif}")
    return 0


def _write_sheet(directory: Path, out: Path) -> None:
    """Writes the picture of a run's evaluations.

    Raises:
        UserError: it has no videos, or one cannot be read.
    """
    sheet = evaluation_sheet(directory, returns_of(read_run(directory)))
    if sheet is None:
        raise UserError(f"{directory} has no videos: train with --evaluation.video true, or leave out --sheet")
    write_durably(out.resolve(), [png(sheet)])
    print(f"evaluations: {out}")


def _play(agent: Agent, env: Environment, *, episodes: int, seed: int, record: bool) -> Evaluation:
    """Plays with a progress bar, and closes ``env``."""
    try:
        with tqdm(total=episodes, unit="episode", disable=None) as bar:
            result = evaluate(
                agent, env, episodes=episodes, seed=seed, record=record, after_episode=lambda: bar.update()
            )
    finally:
        env.close()
    assert result is not None, "it is never stopped"
    return result
