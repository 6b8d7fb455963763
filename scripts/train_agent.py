#!/usr/bin/env python
"""Train an agent from pixels.

    python scripts/train_agent.py --env cheetah-run                     # the paper's settings, for a GPU
    python scripts/train_agent.py --env cheetah-run --preset cpu        # on two CPU cores, in under an hour
    python scripts/train_agent.py --env tiny-reach --preset cpu         # a first friend: about a minute

The same command resumes a run that was stopped. Curves: tensorboard --logdir runs
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import envs
from curl_rl.rl.config import RunConfig, parse_command_line
from curl_rl.rl.training import train
from curl_rl.rl.workers import Environment
from curl_rl.runs.command_line import exit_code_of
from curl_rl.runs.errors import UserError
from envs.rendering import RenderingUnavailable


def main() -> int:
    """Read the command line, train, and say with the exit code how it ended."""

    def work() -> None:
        description = (__doc__ or "").strip()
        config, fresh = parse_command_line(sys.argv[1:], program="train_agent.py", description=description)
        train(config, lambda: make_environment(config), fresh=fresh)

    return exit_code_of("train_agent.py", work)


def make_environment(config: RunConfig) -> Environment:
    """The environment that the configuration names.

    Raises:
        UserError: there is none of that name, or this machine cannot draw it.
    """
    e = config.environment
    try:
        return envs.make(config.env, size=e.size, stack=e.stack, action_repeat=e.action_repeat, quality=e.quality)
    except (ValueError, RenderingUnavailable) as error:
        raise UserError(" ".join(str(error).split())) from None


if __name__ == "__main__":
    raise SystemExit(main())
