"""Training a detector: reads the data, sets up the trainer and runs it."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import torch

from curl_rl.runs.allocator import keep_freed_memory
from curl_rl.runs.compute import resolve_device
from curl_rl.runs.directory import claimed
from curl_rl.runs.errors import UserError
from curl_rl.runs.faults import refusing_what_exceeds
from curl_rl.runs.session import Remedies
from curl_rl.vision.data import DIGITS, whole_path
from curl_rl.vision.detection.config import DetectionConfig
from curl_rl.vision.detection.cutouts import read_cutouts
from curl_rl.vision.detection.scenes import check_backgrounds
from curl_rl.vision.detection.tasks import Tasks, read_tasks
from curl_rl.vision.detection.trainer import Data, DetectionTrainer

DIGIT_TASKS = Tasks((("0", "1", "2", "3"), ("4", "5", "6")), ("7", "8", "9"))
"""The tasks of the digits, unless a file has others."""

_REMEDIES = Remedies(
    memory="lower batch_size or detector.width, with --fresh if the run has begun",
    numbers="try a lower optimizer.lr, with --fresh or in another --run directory",
)


def train_detector(config: DetectionConfig, *, fresh: bool = False) -> Path:
    """Trains a run to the end of its last task, resuming it if it has been started before.

    Args:
        config: the run's settings.
        fresh: set an earlier run in the directory aside and start over.

    Returns:
        The run's directory.

    Raises:
        UserError: the directory belongs to another configuration, or the settings do not suit the data or the machine.
        TrainingFault: a value is not finite, or the disk failed; the last checkpoint is intact.
        Stopped: SIGINT or SIGTERM was received; the run is saved.
    """
    with contextlib.ExitStack() as stack:
        device = resolve_device(config.device)
        if config.compute.threads:
            torch.set_num_threads(config.compute.threads)
        if device.type == "cpu":
            keep_freed_memory()
        tasks = tasks_of(config)
        config = replace(
            config,
            device=str(device),
            data=whole_path(config.data),
            tasks=None if config.tasks is None else config.tasks.absolute(),
            tasks_sha256=tasks.digest,
        )
        data = read_data(config, tasks)
        claim = stack.enter_context(claimed(config.directory, config, fresh=fresh))
        with refusing_what_exceeds(device, _REMEDIES.memory):
            settings = config.schema.lasting(config)
            trainer = DetectionTrainer(config, device, data, remedies=_REMEDIES, settings=settings)
            stack.callback(trainer.close)
            claim.record(trainer.session.position().count, "images")
        trainer.run()
    return config.directory


def tasks_of(config: DetectionConfig) -> Tasks:
    """The tasks of a run.

    Raises:
        UserError: they cannot be read, are missing, or are not those recorded in the settings.
    """
    if config.tasks is not None:
        tasks = read_tasks(config.tasks)
    elif config.data == DIGITS:
        tasks = DIGIT_TASKS
    else:
        raise UserError(
            f"tasks must name a YAML file for {config.data}, such as one with `tasks: [[cat, dog], [car]]`, got none"
        )
    if config.tasks_sha256 not in (None, tasks.digest):
        raise UserError(
            f"the tasks must have tasks_sha256 {str(config.tasks_sha256)[:12]}…, got SHA-256 {tasks.digest[:12]}…"
        )
    return tasks


def read_data(config: DetectionConfig, tasks: Tasks) -> Data:
    """Reads the cut-outs of all classes.

    Raises:
        UserError: a class is missing or has too few pictures, or the backgrounds lack scikit-learn.
    """
    check_backgrounds(config.scenes)
    cutouts = read_cutouts(config.data, tasks.classes)
    return Data(tasks, cutouts["train"], cutouts["validation"], cutouts["test"])
