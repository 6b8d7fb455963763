"""The runs of a sweep in one CSV file, in the long form of :mod:`curl_rl.report.long_csv`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from curl_rl.report.curves import SWEEP_CSV
from curl_rl.report.long_csv import write_runs
from curl_rl.report.runs import Run, read_run, warn
from curl_rl.runs.directory import CONFIG
from curl_rl.runs.errors import UserError, one_line
from curl_rl.sweep.files import JobFiles
from curl_rl.sweep.job import Job


def collect(folder: Path, jobs: Sequence[Job], command: str) -> Path | None:
    """Writes ``sweep.csv`` in the sweep's folder; its ``exp_name`` is a job's preset and settings.

    Args:
        folder: the sweep's folder.
        jobs: the jobs; those without metrics are left out.
        command: for the first line of the file.

    Returns:
        The file; None if no job has metrics.
    """
    runs: list[Run] = []
    for job in jobs:
        directory = JobFiles(folder, job.name).run
        if not (directory / CONFIG).is_file():
            continue
        try:
            run = read_run(directory)
        except UserError as error:
            warn(f"{one_line(error)}; {directory} is left out")
            continue
        if run.rows:
            runs.append(replace(run, env=job.env, label=job.label, seed=job.seed))
    if not runs:
        return None
    write_runs(runs, folder / SWEEP_CSV, [("command", command)])
    return folder / SWEEP_CSV
