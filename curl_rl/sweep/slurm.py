"""Jobs in a Slurm queue, by way of submitit, whose local executor does the same without Slurm."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from curl_rl.runs.errors import UserError, one_line
from curl_rl.sweep.worker import Task, work

_ANY_NUMBER = 100_000
_A_YEAR = 366 * 24 * 60  # minutes; the local executor's own limit is five minutes


class SubmittedJobs:
    """Submits each job by itself.

    Args:
        cluster: ``slurm``, or ``local`` for processes on this machine.
        folder: for submitit's files, which all machines see.
        jobs: how many jobs to have in the queue at the same time; None for all.
        cpus: cores of a job.
        gpus: GPUs of a job.
        parameters: further options of ``sbatch``, such as ``partition`` or ``time``.

    Raises:
        UserError: submitit is not installed, Slurm is not there, or it does not take a parameter.
    """

    def __init__(
        self,
        cluster: Literal["slurm", "local"],
        folder: Path,
        jobs: int | None,
        cpus: int,
        gpus: float | None,
        parameters: Mapping[str, str],
    ) -> None:
        try:
            import submitit
        except ImportError:
            raise UserError(
                "--on slurm needs submitit: pip install submitit, or install this package with the extra [slurm]"
            ) from None
        if gpus is not None and gpus != int(gpus):
            raise UserError(f"gpus_per_job must be a whole number with --on slurm, got {gpus:g}: Ray takes fractions")
        self.outlives = cluster == "slurm"
        try:
            self._executor: Any = submitit.AutoExecutor(folder=str(folder), cluster=cluster)
            limits = {"timeout_min": _A_YEAR} if cluster == "local" else {}
            named = {f"slurm_{name}": int(text) if text.isdecimal() else text for name, text in parameters.items()}
            devices = {} if gpus is None else {"gpus_per_node": int(gpus)}
            self._executor.update_parameters(name="sweep", cpus_per_task=cpus, **devices, **limits, **named)
        except (RuntimeError, NameError, ValueError) as error:
            raise UserError(f"--on {'slurm' if self.outlives else 'local-submitit'}: {one_line(error)}") from None
        self._jobs = jobs
        self._submitted: dict[str, Any] = {}

    @property
    def at_once(self) -> int:
        """Jobs submitted; how many of them run is the queue's concern."""
        return max(len(self._submitted), 1)

    def room(self, elsewhere: int) -> int:
        """Jobs that can be submitted now, while ``elsewhere`` others of the sweep run."""
        return max((self._jobs or _ANY_NUMBER) - len(self._submitted) - elsewhere, 0)

    def start(self, task: Task) -> None:
        """Submits a job."""
        self._submitted[task.name] = self._executor.submit(work, task)

    def ended(self) -> dict[str, str]:
        """Names of the jobs that have ended since the last call, with a line on what went wrong in their worker."""
        over = {name: job for name, job in self._submitted.items() if job.done()}
        for name in over:
            del self._submitted[name]
        return {name: self._fault(job) for name, job in over.items()}

    @staticmethod
    def _fault(job: Any) -> str:
        error = job.exception()
        return "" if error is None else f"submitit: {one_line(error)[:300]}"

    def close(self) -> None:
        """The queue keeps what it has."""
