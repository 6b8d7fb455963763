"""Pretraining on images and recorded frames: sets up the trainer and runs it."""

from __future__ import annotations

import contextlib
import shlex
from dataclasses import replace
from pathlib import Path

import torch

from curl_rl.artifacts.encoder_file import ENCODER, last_names
from curl_rl.pretraining import distributed
from curl_rl.pretraining.sources import views_of
from curl_rl.pretraining.trainer import Pretrainer
from curl_rl.recordings.store import is_recording
from curl_rl.runs.allocator import keep_freed_memory
from curl_rl.runs.compute import resolve_device
from curl_rl.runs.console import say
from curl_rl.runs.directory import Claim, claimed
from curl_rl.runs.errors import UserError
from curl_rl.runs.faults import refusing_what_exceeds
from curl_rl.runs.session import Remedies
from curl_rl.vision.checks import check_run
from curl_rl.vision.config import VisionConfig
from curl_rl.vision.data import whole_path
from curl_rl.vision.data.image_sets import ImageSet
from curl_rl.vision.images import images_of
from curl_rl.vision.schedule_file import read_schedule, with_digest
from curl_rl.vision.source import ImageSource
from curl_rl.vision.watchers import EmbeddingProjector, HeldOutEpisodes, NearestNeighbors, ViewPictures

_REMEDIES = Remedies(
    memory="stream the images with --compute.storage stream, or lower batch_size, encoder.resnet.width or "
    "objectives.moco.queue, with --fresh if the run has begun",
    numbers="try a lower optimizer.lr or a longer warm-up, with --fresh or in another --run directory",
)


def pretrain(config: VisionConfig, *, fresh: bool = False) -> Path:
    """Trains a run to its last epoch, resuming it if it has been started before.

    Under ``torchrun`` the processes share each batch, and only process 0 writes.

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
        # The whole path, so that the run can be evaluated from another directory.
        config = replace(config, device=str(device), data=whole_path(config.data))
        stack.enter_context(distributed.process_group(device))
        if device.type == "cuda" and distributed.world_size() > 1:
            device = torch.device("cuda", torch.cuda.current_device())
        if config.compute.threads:
            torch.set_num_threads(config.compute.threads)
        if device.type == "cpu":
            keep_freed_memory()
        with distributed.raised_together(UserError):
            config = replace(config, augment=with_digest(config.augment))
            images = images_of(config, "train", device)
            source = source_of(config, images, fresh=fresh)
        claim: Claim | None = None
        with distributed.raised_together(UserError):  # the others wait until the directory is this run's
            if distributed.rank() == 0:
                claim = stack.enter_context(claimed(config.directory, config, fresh=fresh))
        with distributed.raised_together(UserError), refusing_what_exceeds(device, _REMEDIES.memory):
            pretrainer = image_pretrainer(config, device, source)
            stack.callback(pretrainer.close)
            if claim is not None:
                claim.record(pretrainer.session.position().count, f"{source.unit}s")
        if distributed.is_first() and images.layout:
            say(images.layout)
            _say_if_inside(config)
        pretrainer.run()
    return config.directory


def _say_if_inside(config: VisionConfig) -> None:
    if config.directory.resolve().is_relative_to(Path(config.data).resolve()):
        say(
            f"the run directory {config.directory} lies in the folder of the images: its pictures are not taken for "
            "data here, but may be by other programs; --run chooses another directory"
        )


def source_of(config: VisionConfig, images: ImageSet, *, fresh: bool = False) -> ImageSource:
    """The images, with the views that the method compares.

    Raises:
        UserError: the settings contradict the images or each other.
    """
    objective = check_run(config, images, fresh=fresh)
    specs = views_of(objective)
    return ImageSource(
        images,
        config.augment,
        specs,
        positive_offset=config.frames.positive_offset if is_recording(config.data) else 0,
        actions=max(spec.future for spec in specs) if "actions" in objective.needs else 0,
        provenance={"data": last_names(config.data)},
        schedule=None if config.augment.schedule is None else read_schedule(config.augment.schedule),
        epochs=config.epochs,
    )


def image_pretrainer(config: VisionConfig, device: torch.device, source: ImageSource) -> Pretrainer:
    """The trainer, with the measurements and pictures for images.

    Raises:
        UserError: as in :class:`Pretrainer`.
    """
    neighbors, held_out = NearestNeighbors(config, source), HeldOutEpisodes(config, source)
    watchers = (
        ViewPictures(config.log.images_every),
        neighbors,
        held_out,
        EmbeddingProjector(config.log.projector, config.seed, source, neighbors, held_out),
    )
    # Recorded frames have no classes, which the evaluation script needs.
    judge = f"evaluate it with: {shlex.join(['python', 'scripts/evaluate_vision.py', str(config.directory)])}"
    use = f"the encoder is {config.directory / ENCODER}.safetensors"
    next_step = use if is_recording(config.data) else judge
    settings = config.schema.lasting(config)
    return Pretrainer(config, device, source, watchers, remedies=_REMEDIES, next_step=next_step, settings=settings)
