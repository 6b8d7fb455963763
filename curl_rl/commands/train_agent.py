"""Train an agent from pixels.

    python scripts/train_agent.py --env cheetah-run                     # the paper's settings, for a GPU
    python scripts/train_agent.py --env cheetah-run --preset cpu        # on two CPU cores, in under an hour
    python scripts/train_agent.py --env tiny-reach --preset cpu         # a first friend: about a minute

The same command resumes a run that was stopped. Curves: tensorboard --logdir runs
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from curl_rl.commands.environments import MakeEnvironment, make_configured
from curl_rl.rl.config import RunConfig, parse_command_line
from curl_rl.rl.training import train
from curl_rl.rl.workers import Environment
from curl_rl.runs.command_line import exit_code_of
from curl_rl.runs.errors import UserError


def main(argv: Sequence[str], make: MakeEnvironment[Environment], *unavailable: type[Exception]) -> int:
    """Read the command line, train, and say with the exit code how it ended.

    Args:
        argv: the command's arguments.
        make: makes the environment that ``--env`` names; cloudpickle must be able to carry it to other processes.
        unavailable: what it raises, ValueError aside, where this machine cannot have that environment.
    """
    program = Path(sys.argv[0]).name

    def work() -> None:
        config, fresh = parse_command_line(list(argv), program=program, description=(__doc__ or "").strip())
        train(config, partial(_environment, make, config, (ValueError, *unavailable)), fresh=fresh)

    return exit_code_of(program, work)


def _environment(
    make: MakeEnvironment[Environment], config: RunConfig, refused: tuple[type[Exception], ...]
) -> Environment:
    """The environment that the configuration names.

    Raises:
        UserError: there is none of that name, or this machine cannot draw it.
    """
    try:
        return make_configured(make, config.env, config.environment)
    except refused as error:
        raise UserError(" ".join(str(error).split())) from None
