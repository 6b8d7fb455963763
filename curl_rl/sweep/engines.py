"""The engine of a sweep, and the threads of its jobs: those of the machine that runs them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from curl_rl.rl.config import RunConfig
from curl_rl.rl.replay import replay_bytes
from curl_rl.runs.errors import UserError
from curl_rl.runs.storage import available_memory
from curl_rl.sweep.config import SweepConfig
from curl_rl.sweep.driver import Engine
from curl_rl.sweep.local import LocalPool, cores, slots_of, visible_gpus
from curl_rl.sweep.ray_cluster import RayCluster
from curl_rl.sweep.slurm import SubmittedJobs

_PROCESS = 2**30  # bytes of a run's process besides its replay: PyTorch, the simulator, the update's activations


def engine_of(config: SweepConfig, runs: Sequence[RunConfig], folder: Path) -> tuple[Engine, int]:
    """The engine for these runs, and the CPU threads of each of its jobs.

    Args:
        config: the sweep.
        runs: the settings of its runs, for the threads and the device that they ask for.
        folder: the sweep's folder.

    Raises:
        UserError: so many jobs do not fit on the machine, or the engine is not installed.
    """
    asked = max((run.compute.threads for run in runs), default=0) or config.cpus_per_job
    if config.on == "local":
        on_gpus = config.gpus_per_job is not None or any(run.device != "cpu" for run in runs)
        gpus = visible_gpus(torch.cuda.device_count()) if on_gpus else []
        if config.gpus_per_job is not None and not gpus:
            raise UserError(f"gpus_per_job must not be set on a machine without a GPU, got {config.gpus_per_job:g}")
        fit = available_memory() // max(map(memory_of, runs))
        slots, threads = slots_of(config.jobs, asked, gpus, config.gpus_per_job or 1, fit)
        return LocalPool(slots), threads
    threads = asked or 1
    if config.on == "ray":
        return RayCluster(config.jobs, threads, config.gpus_per_job), threads
    files, gpus_each = folder / "submitit", config.gpus_per_job
    if config.on == "slurm":
        return SubmittedJobs("slurm", files, config.jobs, threads, gpus_each, config.slurm), threads
    return SubmittedJobs("local", files, config.jobs or max(cores() // threads, 1), threads, gpus_each, {}), threads


def memory_of(run: RunConfig) -> int:
    """An estimate of the bytes of main memory that a run takes at most."""
    steps = min(run.replay.capacity, -(-run.frames // run.environment.action_repeat))
    stack, size = run.environment.stack, run.environment.size
    # The pixels of a step count in kilobytes, its actions in bytes: any number of them will do.
    replay = replay_bytes(steps, (3 * stack, size, size), 16, stack=stack, streams=run.training.environments)
    return _PROCESS * run.training.environments + (0 if run.replay.storage == "disk" else replay)
