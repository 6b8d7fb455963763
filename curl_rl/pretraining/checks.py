"""Checks that the networks fit the batch and the data, made before any run directory is touched."""

from __future__ import annotations

import math

import torch

from curl_rl.encoders import ResNet
from curl_rl.objectives import DataSpec, Objective, ObjectiveUser
from curl_rl.pretraining import distributed
from curl_rl.pretraining.config import Settings
from curl_rl.pretraining.networks import build_networks
from curl_rl.runs.errors import UserError, one_line


def try_out(
    settings: Settings, shape: tuple[int, int, int], smallest_side: int, data: DataSpec, user: ObjectiveUser
) -> Objective:
    """Builds the networks on the meta device and computes one loss on an empty batch.

    Args:
        settings: the run's settings.
        shape: ``(C, H, W)`` of a view.
        smallest_side: side of the smallest view, in pixels.
        data: sizes of the data.
        user: what the data offer.

    Returns:
        The objective, on the meta device.

    Raises:
        UserError: the batch, the views, the network, the method and the data do not fit together.
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
    return objective
