"""Checks that the networks fit the batch and the data, made before any run directory is touched."""

from __future__ import annotations

import math

import torch

from curl_rl.encoders import Encoder, ResNet
from curl_rl.objectives import DataSpec, Objective, ObjectiveUser
from curl_rl.pretraining import distributed
from curl_rl.pretraining.config import Settings
from curl_rl.pretraining.networks import build_networks
from curl_rl.runs.directory import check_room
from curl_rl.runs.errors import UserError, one_line


def check_warmup(settings: Settings, steps_per_epoch: int) -> None:
    """Checks that the warm-up, rounded to whole steps, is shorter than the run.

    Raises:
        UserError: it is not.
    """
    epochs, total = settings.optimizer.warmup_epochs, settings.epochs * steps_per_epoch
    warmup = settings.optimizer.warmup_steps(steps_per_epoch)
    if warmup >= total:
        most = math.floor(100 * (total - 1) / steps_per_epoch) / 100
        raise UserError(
            f"optimizer.warmup_epochs must be shorter than the run, got {epochs:g}, which is {warmup} of {total} "
            f"steps: set it to {most:g} or less, or train for more epochs"
        )


def try_out(
    settings: Settings,
    shape: tuple[int, int, int],
    smallest_side: int,
    data: DataSpec,
    user: ObjectiveUser,
    *,
    fresh: bool = False,
) -> Objective:
    """Builds the networks on the meta device and computes one loss on an empty batch.

    Args:
        settings: the run's settings.
        shape: ``(C, H, W)`` of a view.
        smallest_side: side of the smallest view, in pixels.
        data: sizes of the data.
        user: what the data offer.
        fresh: whether an earlier run in the directory will be set aside.

    Returns:
        The objective, on the meta device.

    Raises:
        UserError: the batch, the views, the network, the method and the data do not fit together, or the checkpoints
            do not fit on the disk.
    """
    resnet = settings.encoder.resnet if settings.encoder.kind == "resnet" else None
    if resnet is not None and settings.batch_size % resnet.batch_norm_splits:
        raise UserError(
            f"encoder.resnet.batch_norm_splits {resnet.batch_norm_splits} must divide batch_size {settings.batch_size}"
        )
    distributed.shard_sizes(settings.batch_size)  # refuses a batch smaller than the number of processes
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            encoder, objective = build_networks(settings, shape, torch.device("meta"), data, user)
            objective.try_out(encoder.feature_spec, settings.batch_size, data)
    except (ValueError, TypeError, OverflowError) as error:  # sizes that no tensor can have raise these types
        raise UserError(one_line(error)) from None
    if resnet is not None and resnet.norm == "batch":
        # Batch norm needs at least two values per channel, over images and positions.
        with torch.device("meta"):
            smallest = ResNet((shape[0], smallest_side, smallest_side), resnet)
        places = math.prod(smallest.feature_spec.map_shape[1:])
        if settings.batch_size // resnet.batch_norm_splits * places < 2:
            raise UserError(
                f"encoder.resnet.batch_norm_splits {resnet.batch_norm_splits} leaves batch norm a single value in the "
                f"last feature maps: use fewer splits of batch_size {settings.batch_size}, or larger views"
            )
    needed = _bytes_to_save(encoder, objective, settings.checkpoint.keep)
    check_room(settings.directory, needed, "lower checkpoint.keep", fresh=fresh)
    return objective


def _bytes_to_save(encoder: Encoder, objective: Objective, keep: int) -> int:
    """Approximate disk space for the checkpoints of the whole run."""
    # With target views, the encoder has a slow copy.
    networks = [encoder, objective, *([encoder] if objective.target_views else [])]
    weights = sum(value.nbytes for network in networks for value in network.state_dict().values())
    # An optimizer keeps two numbers per weight; while a checkpoint is being written, all others still exist.
    return 3 * weights * (keep + 1)
