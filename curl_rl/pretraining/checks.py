"""Checks that the networks fit the batch and the data, made before any run directory is touched."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch

from curl_rl.encoders import ResNet
from curl_rl.objectives import DataSpec, Modality, Objective, ObjectiveUser
from curl_rl.pretraining import distributed
from curl_rl.pretraining.config import BackboneConfig, Settings
from curl_rl.pretraining.networks import Networks, Shape, build_networks
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
    shapes: Mapping[Modality, Shape],
    data: DataSpec,
    user: ObjectiveUser,
    *,
    smallest_side: int | None = None,
    fresh: bool = False,
) -> Objective:
    """Builds the networks on the meta device and computes one loss on an empty batch.

    Args:
        settings: the run's settings.
        shapes: input shapes of the encoders (:class:`~curl_rl.pretraining.sources.Source`).
        data: sizes of the data.
        user: what the data offer.
        smallest_side: side of the smallest view of an image, in pixels. [default: that of the encoder's input]
        fresh: whether an earlier run in the directory will be set aside.

    Returns:
        The objective, on the meta device.

    Raises:
        UserError: the batch, the views, the network, the method and the data do not fit together, or the checkpoints
            do not fit on the disk.
    """
    images = settings.encoders["image"] if "image" in shapes else None
    resnet = images.resnet if isinstance(images, BackboneConfig) and images.kind == "resnet" else None
    if resnet is not None and settings.batch_size % resnet.batch_norm_splits:
        raise UserError(
            f"encoder.resnet.batch_norm_splits {resnet.batch_norm_splits} must divide batch_size {settings.batch_size}"
        )
    distributed.shard_sizes(settings.batch_size)  # refuses a batch smaller than the number of processes
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            networks = build_networks(settings, shapes, torch.device("meta"), data, user)
            if networks.text_encoder is not None:
                data = replace(data, text=networks.text_encoder.feature_spec)
            networks.objective.try_out(networks.encoder.feature_spec, settings.batch_size, data)
    except (ValueError, TypeError, OverflowError) as error:  # sizes that no tensor can have raise these types
        raise UserError(one_line(error)) from None
    if resnet is not None and resnet.norm == "batch":
        # Batch norm needs at least two values per channel, over images and positions.
        with torch.device("meta"):
            channels, side, _ = shapes["image"]
            smallest = ResNet((channels, smallest_side or side, smallest_side or side), resnet)
        places = math.prod(smallest.feature_spec.map_shape[1:])
        if settings.batch_size // resnet.batch_norm_splits * places < 2:
            raise UserError(
                f"encoder.resnet.batch_norm_splits {resnet.batch_norm_splits} leaves batch norm a single value in the "
                f"last feature maps: use fewer splits of batch_size {settings.batch_size}, or larger views"
            )
    needed = _bytes_to_save(networks, settings.checkpoint.keep)
    check_room(settings.directory, needed, "lower checkpoint.keep", fresh=fresh)
    return networks.objective


def _bytes_to_save(networks: Networks, keep: int) -> int:
    """Approximate disk space for the checkpoints of the whole run."""
    # With target views, the encoders have slow copies.
    copies = 2 if networks.objective.target_views else 1
    saved = [networks.objective, *copies * networks.encoders]
    weights = sum(value.nbytes for network in saved for value in network.state_dict().values())
    # An optimizer keeps two numbers per weight; while a checkpoint is being written, all others still exist.
    return 3 * weights * (keep + 1)
