"""A pool of processes on this machine, which never has more threads at work than there are cores."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from curl_rl.runs.errors import UserError
from curl_rl.sweep.worker import Task, command_for


def cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def visible_gpus(count: int) -> list[str]:
    """Names of the GPUs, as CUDA_VISIBLE_DEVICES takes them.

    Args:
        count: how many PyTorch sees.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [name for name in named.split(",") if name][:count] if named is not None else [str(i) for i in range(count)]


def slots_of(
    jobs: int | None, threads: int | None, gpus: Sequence[str], gpus_per_job: float, fit: int | None = None
) -> tuple[list[Mapping[str, str]], int]:
    """The places of a pool and the threads of each.

    Args:
        jobs: the number of places; None for as many as fit.
        threads: threads of a job, if the sweep sets them; None to share the cores evenly.
        gpus: names of the machine's GPUs, if the jobs use them.
        gpus_per_job: GPUs of a job, or the fraction of one.
        fit: how many jobs fit into memory, by an estimate, which only matters if ``jobs`` is None.

    Returns:
        For each place the variables of its processes, and the threads.

    Raises:
        UserError: so many do not fit.
    """
    most = max(cores() // (threads or 1), 1)
    why = f"the {cores()} cores of this machine" + (f" for {threads} threads each" if threads else "")
    visible: list[Mapping[str, str]] = [{}]
    if gpus:
        if gpus_per_job < 1:
            share = int(1 / gpus_per_job + 1e-9)
            visible = [{"CUDA_VISIBLE_DEVICES": name} for _ in range(share) for name in gpus]
        else:
            size = int(gpus_per_job)
            groups = [gpus[i : i + size] for i in range(0, len(gpus) - size + 1, size)]
            visible = [{"CUDA_VISIBLE_DEVICES": ",".join(group)} for group in groups]
        if not visible:
            raise UserError(f"gpus_per_job must be at most the {len(gpus)} GPUs of this machine, got {gpus_per_job:g}")
        if len(visible) < most:
            most, why = len(visible), f"the {len(gpus)} GPUs of this machine with {gpus_per_job:g} of one per job"
    if jobs is not None and not 1 <= jobs <= most:
        raise UserError(f"jobs must be from 1 to {most}, for {why}, got {jobs}: more would only slow one another down")
    count = jobs or max(min(most, most if fit is None else fit), 1)
    each = threads or max(cores() // count, 1)
    return [{**visible[i % len(visible)], "OMP_NUM_THREADS": str(each)} for i in range(count)], each


class LocalPool:
    """Runs jobs on this machine.

    Args:
        slots: for each job that runs at the same time, variables of its environment.
    """

    outlives = False

    def __init__(self, slots: Sequence[Mapping[str, str]]) -> None:
        self._slots = slots
        self._workers: dict[str, tuple[int, subprocess.Popen[bytes]]] = {}

    @property
    def at_once(self) -> int:
        """Jobs that run at the same time."""
        return len(self._slots)

    def room(self, elsewhere: int) -> int:
        """Jobs that can start now, while ``elsewhere`` others of the sweep run that this pool has not started."""
        return max(len(self._slots) - len(self._workers) - elsewhere, 0)

    def start(self, task: Task) -> None:
        """Starts a worker on the task."""
        taken = Counter(slot for slot, _ in self._workers.values())
        slot = min(range(len(self._slots)), key=lambda one: taken[one])
        command = command_for(replace(task, variables={**task.variables, **self._slots[slot]}))
        # A session of its own: Ctrl-C in a terminal is for the sweep, and a killed sweep leaves its jobs running.
        worker = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        self._workers[task.name] = (slot, worker)

    def ended(self) -> dict[str, str]:
        """Names of the tasks whose workers have ended since the last call, with a line on what went wrong in them."""
        over = {name: worker.poll() for name, (_, worker) in self._workers.items() if worker.poll() is not None}
        for name in over:
            del self._workers[name]
        return {name: "" if code == 0 else f"the worker ended with exit code {code}" for name, code in over.items()}

    def close(self) -> None:
        """Nothing is left to close."""
