"""Jobs on a Ray cluster, or on the local one that Ray starts if there is none."""

from __future__ import annotations

from typing import Any

from curl_rl.runs.errors import UserError, one_line
from curl_rl.sweep.worker import Task, work

_ANY_NUMBER = 100_000


class RayCluster:
    """Runs each job as a task of Ray's, which queues those for which no cores or GPUs are free.

    The cluster is that of RAY_ADDRESS or the one that runs on this machine. Its machines see the sweep's folder at the
    same path and have this package installed.

    Args:
        jobs: how many tasks to hand over at the same time; None for all.
        cpus: cores of a job.
        gpus: GPUs of a job, or the fraction of one; None for one if the cluster has any.

    Raises:
        UserError: Ray is not installed.
    """

    outlives = False

    def __init__(self, jobs: int | None, cpus: int, gpus: float | None) -> None:
        try:
            import ray
        except ImportError:
            raise UserError(
                "--on ray needs Ray: pip install ray, or install this package with the extra [ray]"
            ) from None
        self._ray: Any = ray
        self._own = not ray.is_initialized()
        if self._own:
            ray.init(log_to_driver=False, logging_level="warning")
        if gpus is None:
            gpus = 1.0 if ray.cluster_resources().get("GPU") else 0.0
        # The sweep tries again by itself, and counts.
        self._work = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(work)
        self._jobs = jobs
        self._tasks: dict[Any, str] = {}

    @property
    def at_once(self) -> int:
        """Tasks handed over; how many of them run is Ray's concern."""
        return max(len(self._tasks), 1)

    def room(self, elsewhere: int) -> int:
        """Tasks that can be handed over now, while ``elsewhere`` other jobs of the sweep run."""
        return max((self._jobs or _ANY_NUMBER) - len(self._tasks) - elsewhere, 0)

    def start(self, task: Task) -> None:
        """Hands a task over."""
        self._tasks[self._work.remote(task)] = task.name

    def ended(self) -> dict[str, str]:
        """Names of the tasks that have ended since the last call, with a line on what went wrong in their worker."""
        if not self._tasks:
            return {}
        over, _ = self._ray.wait(list(self._tasks), num_returns=len(self._tasks), timeout=0)
        return {self._tasks.pop(one): self._fault(one) for one in over}

    def _fault(self, reference: Any) -> str:
        try:
            self._ray.get(reference)
        except Exception as error:  # of any kind: the worker's machine may have gone
            return f"Ray: {one_line(error)[:300]}"
        return ""

    def close(self) -> None:
        """Leaves the cluster."""
        if self._own:
            self._ray.shutdown()
