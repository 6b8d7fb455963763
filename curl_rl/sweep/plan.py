"""What a job trains: its settings checked before anything starts, its budget and its command."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from curl_rl.installation import IS_CLONE, ROOT
from curl_rl.rl.config import RunConfig, parse_command_line, to_dict
from curl_rl.runs.errors import UserError
from curl_rl.runs.settings import nearest
from curl_rl.sweep.files import JobFiles
from curl_rl.sweep.job import Job

THREADS = "compute.threads"

_OF_THE_SWEEP = {"env": "--env", "preset": "--preset", "seed": "--seeds", "run": "--folder"}


def check_setting(name: str) -> None:
    """Checks that a sweep may set the setting ``name``.

    Raises:
        UserError: there is no such setting, or the sweep has another way to choose it.
    """
    if name in _OF_THE_SWEEP:
        raise UserError(f"set must not name {name}: {_OF_THE_SWEEP[name]} chooses it")
    known = [*_names(to_dict(RunConfig()))]
    if name not in known:
        raise UserError(f"set: unknown setting {name}{nearest(name, known)}; train_agent.py --help explains all")


def _names(settings: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            yield from _names(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


class Plan:
    """Reads jobs' settings as ``train_agent.py`` will, once for all seeds."""

    def __init__(self) -> None:
        self._configs: dict[tuple[object, ...], RunConfig] = {}

    def config(self, job: Job) -> RunConfig:
        """The settings of a job's run, but for seed and directory.

        Raises:
            UserError: they are invalid.
        """
        key = (job.env, job.preset, job.settings)
        if key not in self._configs:
            self._configs[key] = parse_command_line(job.flags, program="train_agent.py", description="")[0]
        return self._configs[key]

    def budget(self, job: Job) -> int:
        """Environment frames that a job's run takes."""
        return self.config(job).frames


def training_command() -> list[str]:
    """The command that trains an agent: the script in a clone, ``python -m curl_rl train`` elsewhere."""
    if IS_CLONE:
        return [sys.executable, str(ROOT / "scripts" / "train_agent.py")]
    return [sys.executable, "-m", "curl_rl", "train"]


def command_of(job: Job, folder: Path, threads: int) -> list[str]:
    """The command of one job.

    Args:
        job: the job.
        folder: the sweep's folder.
        threads: CPU threads, unless the job sets them; 0 leaves them to PyTorch.
    """
    command = [*training_command(), *job.flags, "--run", str(JobFiles(folder, job.name).run)]
    if threads and THREADS not in dict(job.settings):
        command += [f"--{THREADS}", str(threads)]
    return command
