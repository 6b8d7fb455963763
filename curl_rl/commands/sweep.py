"""Train many agents, by task, preset, settings and seed, as resumable jobs on this machine or on a cluster.

    python scripts/sweep.py --env cartpole-swingup walker-walk --preset cpu --seeds 1 2 3 \\
        --set agent.objective=curl,none frames=100000
    python scripts/sweep.py --config sweep.yaml               # the same entries in a file
    python scripts/sweep.py --config sweep.yaml --status      # all jobs, and the time left; runs nothing
    python scripts/sweep.py --config sweep.yaml --on ray --gpus_per_job 0.25
    python scripts/sweep.py --config sweep.yaml --on slurm --slurm partition=gpu time=720
    python scripts/sweep.py --env cartpole-swingup --preset cpu --seeds 1 2 --trials 30 \\
        --search agent.encoder_tau=0.005..0.1:log agent.objective=curl,none

Every combination is a job with a directory of its own below FOLDER/runs, named by all that differs from the preset. The
same command continues a sweep that was interrupted or killed at any moment: finished jobs are left alone, others resume
where they were saved, and those that still run are watched. A job that fails is tried once more, then reported with its
log; the others go on. Ctrl-C saves and stops all jobs. FOLDER/sweep.csv has the metrics of all runs in the long form,
for scripts/plot_curves.py and scripts/benchmark_table.py.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from curl_rl.commands.environments import MakeEnvironment, make_configured
from curl_rl.installation import IS_CLONE, ROOT
from curl_rl.rl.config import RunConfig
from curl_rl.rl.workers import Environment
from curl_rl.runs.command_line import command_parser, exit_code_of
from curl_rl.runs.console import progress_bar, say
from curl_rl.runs.errors import TrainingFault, UserError, one_line
from curl_rl.sweep.collect import collect
from curl_rl.sweep.config import SweepConfig, read_sweep
from curl_rl.sweep.driver import Driver
from curl_rl.sweep.engines import engine_of
from curl_rl.sweep.files import JobFiles, one_sweep
from curl_rl.sweep.grid import Grid
from curl_rl.sweep.plan import Plan, check_setting, command_of
from curl_rl.sweep.progress import progress_of
from curl_rl.sweep.search import JOURNAL, Search
from curl_rl.sweep.source import FixedJobs, Source
from curl_rl.sweep.table import table

Check = Callable[[Sequence[RunConfig]], None]
"""Refuses runs whose environment does not exist."""


def main(argv: Sequence[str], make: MakeEnvironment[Environment], *unavailable: type[Exception]) -> int:
    """Reads the command line, runs the sweep or shows it, and returns the exit code.

    Args:
        argv: the command's arguments.
        make: makes the environment of a job, to see whether there is such a one.
        unavailable: exceptions that ``make`` raises if this machine cannot run the environment; others may.
    """
    parser = command_parser(__doc__)
    parser.add_argument("--config", type=Path, metavar="YAML", help="file with the entries below, by their names")
    parser.add_argument("--env", nargs="+", metavar="TASK", help="tasks")
    parser.add_argument("--preset", nargs="+", metavar="NAME", help="presets (default: curl)")
    parser.add_argument("--seeds", nargs="+", metavar="SEED", help="seeds (default: 1)")
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        metavar="NAME=VALUE,...",
        help="settings of train_agent.py, each with one value or several to combine; lists in brackets: [2],[2,1]",
    )
    parser.add_argument("--folder", help="where everything goes (default: sweeps/NAME of --config, or sweeps/default)")
    parser.add_argument(
        "--on",
        metavar="ENGINE",
        help="where jobs run: local, a pool on this machine (default); ray, a cluster of Ray's; slurm, a queue; "
        "local-submitit, as slurm but on this machine",
    )
    parser.add_argument(
        "--jobs", help="jobs at the same time (default: as many as this machine has cores, or GPUs if they use them)"
    )
    parser.add_argument("--cpus_per_job", help="cores of a job (default: an even share; 1 on a cluster)")
    parser.add_argument(
        "--gpus_per_job", help="GPUs of a job, or the fraction of one, such as 0.25 (default: 1 if any)"
    )
    parser.add_argument(
        "--slurm", nargs="+", action="extend", metavar="NAME=VALUE", help="options of sbatch; time in minutes"
    )
    parser.add_argument(
        "--search",
        nargs="+",
        action="extend",
        metavar="NAME=RANGE",
        help="settings to search by trials: LOW..HIGH, LOW..HIGH:log or A,B,C. A trial's value is the mean return of "
        "the last evaluation over tasks and seeds; trials behind the median of the others are given up",
    )
    parser.add_argument("--trials", help="trials of the search (default: 20)")
    parser.add_argument("--status", action="store_true", help="print the table of all jobs and exit")
    parser.add_argument("--dry_run", action="store_true", help="print the command of every job and exit")
    arguments = vars(parser.parse_args(argv))
    path, status, dry = (arguments.pop(name) for name in ("config", "status", "dry_run"))
    program = Path(sys.argv[0]).name

    def check(runs: Sequence[RunConfig]) -> None:
        for run in {run.env: run for run in runs}.values():
            try:
                make_configured(make, run.env, run.environment).close()
            except ValueError as error:
                raise UserError(one_line(error)) from None
            except unavailable:
                pass

    command = f"{program if not IS_CLONE else f'python scripts/{program}'} {shlex.join(argv)}"
    return exit_code_of(program, lambda: _work(path, arguments, status, dry, command, check))


def _work(path: Path | None, flags: Mapping[str, Any], status: bool, dry: bool, command: str, check: Check) -> None:
    config = read_sweep(path, flags)
    folder = config.folder.absolute()
    grid = Grid(config.env, config.preset, config.seeds, config.set)
    plan = Plan()
    runs = _checked(config, grid, plan)
    if dry:
        for job in [] if config.search else grid.jobs():
            print(shlex.join(command_of(job, folder, 0)))
        if config.search:
            print(
                f"{config.trials} trials of {len(grid.jobs())} jobs each, with {', '.join(config.search)} to be found"
            )
    elif status:
        jobs = _source(config, grid, folder, watch=True).jobs
        found = [progress_of(job, JobFiles(folder, job.name), plan.budget(job)) for job in jobs]
        print("\n".join(table(found, sum(one.state == "running" for one in found))))
    else:
        check(runs)
        with one_sweep(folder):
            _run(config, _source(config, grid, folder), plan, runs, folder, command)


def _checked(config: SweepConfig, grid: Grid, plan: Plan) -> list[RunConfig]:
    """The settings of every kind of run; of a search, those at the ends of its ranges.

    Raises:
        UserError: some are invalid.
    """
    for name in (*config.set, *config.search):
        check_setting(name)
    choices = {name: one.ends for name, one in config.search.items()}
    most = max(map(len, choices.values()), default=1)
    ends = [{name: values[i % len(values)] for name, values in choices.items()} for i in range(most)]
    kinds = [job for end in ends for job in replace(grid, seeds=grid.seeds[:1]).jobs(end)]
    runs = []
    with progress_bar(
        len(kinds), initial=0, unit="kind", description="checking settings", hidden=len(kinds) < 10
    ) as bar:
        for job in kinds:
            runs.append(plan.config(job))
            bar.update()
    if config.search and any(not run.evaluation.every for run in runs):
        raise UserError(
            "evaluation.every must be at least 1 in a search, whose aim is the return of evaluations, got 0"
        )
    return runs


def _source(config: SweepConfig, grid: Grid, folder: Path, *, watch: bool = False) -> Source:
    if not config.search:
        return FixedJobs(grid.jobs())
    if watch and not (folder / JOURNAL).exists():
        return FixedJobs([])
    return Search(grid, config.search, config.trials, folder, watch=watch)


def _run(
    config: SweepConfig, source: Source, plan: Plan, runs: Sequence[RunConfig], folder: Path, command: str
) -> None:
    """Runs the sweep to its end, and collects it however it ends.

    Raises:
        TrainingFault: jobs have failed.
        Stopped: a signal ended the sweep.
    """
    if IS_CLONE:  # workers import the package, which a script finds by its own place
        paths = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(part for part in paths if part))
    engine, threads = engine_of(config, runs, folder)
    driver = Driver(folder, source, engine, lambda job: command_of(job, folder, threads), plan.budget)
    try:
        failed = driver.run()
    finally:
        engine.close()
        path = collect(folder, source.jobs, command)
        print("\n".join(table(driver.look(), engine.at_once)))
        if path is not None:
            say(f"metrics of all runs: {path}")
        if isinstance(source, Search) and source.best:
            print(source.best)
    if failed:
        raise TrainingFault(f"{failed} of {len(source.jobs)} jobs failed; the same command tries them again")
