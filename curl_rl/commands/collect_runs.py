"""Collect the runs of an experiment into one CSV file, to keep and to pass on.

    python scripts/collect_runs.py runs/cartpole-swingup --out results/cpu/cartpole-swingup.csv --commit 7c3dcaf \\
        --machine "2 cores of a Xeon" --command "python scripts/train_agent.py --env cartpole-swingup --preset cpu"

The file begins with the commands, commits and machine as comments, and the days on which the runs were made; then come
the settings of each kind of run, and then every row of every metrics.jsonl, in the long form that other tools read:
exp_name,env_name,seed,metric,env_step,value. scripts/plot_curves.py and scripts/benchmark_table.py read it in place of
the runs, which it does not change or delete. Checkpoints, encoders, videos and TensorBoard's files are not in it.

    python scripts/collect_runs.py results/cpu/cartpole-swingup.csv --restore runs/cartpole

writes the runs back as directories with config.yaml and metrics.jsonl.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import get_args

from curl_rl.report.curves import read_runs
from curl_rl.report.long_csv import write_runs
from curl_rl.report.runs import Run, named
from curl_rl.runs.command_line import check_writable, command_parser, refusals
from curl_rl.runs.console import counted
from curl_rl.runs.directory import CONFIG
from curl_rl.runs.errors import UserError
from curl_rl.runs.files import write_durably
from curl_rl.runs.kinds import Kind
from curl_rl.runs.logger import METRICS_FILE
from curl_rl.runs.yaml_file import write_settings


def main(argv: Sequence[str]) -> int:
    """Reads the command line and the runs, and writes one file, or the runs back."""
    parser = command_parser(__doc__)
    parser.add_argument("paths", type=Path, nargs="+", help="runs, folders of runs, CSV files of runs")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--out", type=Path, help="CSV file to write")
    target.add_argument("--restore", type=Path, metavar="FOLDER", help="new folder to write the runs to")
    parser.add_argument("--command", action="append", default=[], help="command that made runs; may be repeated")
    parser.add_argument("--commit", action="append", default=[], help="commit that made runs; may be repeated")
    parser.add_argument("--machine", action="append", default=[], help="machine that made runs; may be repeated")
    arguments = parser.parse_args(argv)
    with refusals(parser):
        if arguments.out and not (arguments.command and arguments.commit and arguments.machine):
            raise UserError("--out needs --command, --commit and --machine: a figure without them cannot be repeated")
        if arguments.out:
            check_writable(arguments.out)
        elif arguments.restore.exists():
            raise UserError(f"{arguments.restore} exists: choose a new folder to restore the runs to")
        runs = [run for run in read_runs(arguments.paths, kinds=get_args(Kind)) if run.rows]
        if not runs:
            raise UserError(f"no run with metrics below {named(arguments.paths)}")
        if arguments.restore:
            for run in runs:
                _restore(run, arguments.restore)
            print(f"{counted(len(runs), 'run')} restored: {arguments.restore}")
            return 0
        texts = [(name, text) for name in ("command", "commit", "machine") for text in getattr(arguments, name)]
        write_runs(runs, arguments.out, [*texts, ("date", _days(runs))])
    print(f"{counted(len(runs), 'run')} collected: {arguments.out}")
    return 0


def _days(runs: Sequence[Run]) -> str:
    """The first and the last day of the runs, in UTC."""
    times = [row["wall_time"] for run in runs for row in run.rows if row.get("wall_time") is not None]
    if not times:
        return "not known"
    days = [datetime.fromtimestamp(moment, timezone.utc).date().isoformat() for moment in (min(times), max(times))]
    return " to ".join(dict.fromkeys(days))


def _restore(run: Run, folder: Path) -> None:
    # Names come from a file that others may have made, so none may lead out of the folder.
    names = [re.sub(r"[^\w.-]+", "_", part).lstrip(".") or "_" for part in (run.env, run.label, f"seed{run.seed}")]
    directory = folder.joinpath(*names)
    directory.mkdir(parents=True)
    settings = {**run.settings, "seed": run.seed, "run": str(directory)}
    kind = settings.pop("kind", None)
    write_settings(directory / CONFIG, settings, kind)
    write_durably(directory / METRICS_FILE, [f"{json.dumps(row)}\n".encode() for row in run.rows])


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
