"""Train an agent from pixels.

    python scripts/train_agent.py --env cheetah-run                     # the paper's settings, for a GPU
    python scripts/train_agent.py --env cheetah-run --preset cpu        # on two CPU cores, in under an hour
    python scripts/train_agent.py --env tiny-reach --preset cpu         # a small first task: about a minute

The same command resumes a stopped run. Curves: tensorboard --logdir runs
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
    """Reads the command line, trains, and returns the exit code.

    Args:
        argv: the command's arguments.
        make: makes the environment named by ``--env``; cloudpickle must be able to serialize it for other processes.
        unavailable: exceptions that ``make`` raises, besides ValueError and ImportError, if this machine cannot run the
            environment.
    """
    program = Path(sys.argv[0]).name

    def work() -> None:
        description = (__doc__ or "").strip()
        config, fresh, salvage = parse_command_line(list(argv), program=program, description=description)
        make_environment = partial(_environment, make, config, (ValueError, ImportError, *unavailable))
        train(config, make_environment, fresh=fresh, salvage=salvage)

    return exit_code_of(program, work)


def _environment(
    make: MakeEnvironment[Environment], config: RunConfig, refused: tuple[type[Exception], ...]
) -> Environment:
    """Makes the configured environment.

    Raises:
        UserError: its name is unknown, a package that it needs is missing, or this machine cannot render it.
    """
    try:
        return make_configured(make, config.env, config.environment)
    except refused as error:
        raise UserError(" ".join(str(error).split())) from None
