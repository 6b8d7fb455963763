"""Whether a run can be done as it is configured: asked before anything of it, or of an earlier one, is touched."""

from __future__ import annotations

import math

import torch

from curl_rl.encoders import ResNet
from curl_rl.pretraining import distributed
from curl_rl.recordings.store import is_recording
from curl_rl.runs.errors import UserError, one_line
from curl_rl.vision.config import VisionConfig
from curl_rl.vision.data.image_sets import ImageSet
from curl_rl.vision.networks import build_networks


def check_run(config: VisionConfig, images: ImageSet) -> None:
    """What can only be known with the images at hand, before anything is written.

    Raises:
        UserError: the batch, the views, the network or the method do not fit them or each other.
    """
    images.batches(config.batch_size)  # refuses a batch that is larger than the set
    a = config.augment
    if images.channels != 3 and a.randaugment:
        raise UserError(f"augment.randaugment {a.randaugment} takes single images, not stacks of frames: take 0")
    if is_recording(config.data) and config.image_size not in (None, images.size):
        raise UserError(
            f"image_size {config.image_size} is not the size of the recorded frames, which are {images.size}×"
            f"{images.size} and not scaled: take --preset frames, or leave image_size out"
        )
    for name, size in (("size", a.size), ("local_size", a.local_size if a.local_views else 0)):
        if size > images.size:
            raise UserError(
                f"augment.{name} {size} is larger than the images of {images.name}, which are {images.size}×"
                f"{images.size}: take {images.size} or less, or larger images by image_size"
            )
    if config.encoder.kind == "pixel" and a.local_views and a.local_size != a.size:
        raise UserError(
            f"augment.local_size {a.local_size} is not augment.size {a.size}, and a pixel encoder takes images of one "
            "size: make them equal, or take --encoder.kind resnet"
        )
    if config.encoder.kind == "resnet" and config.batch_size % config.encoder.resnet.batch_norm_splits:
        raise UserError(
            f"encoder.resnet.batch_norm_splits {config.encoder.resnet.batch_norm_splits} must divide batch_size "
            f"{config.batch_size}"
        )
    distributed.shard_sizes(config.batch_size)  # refuses a batch smaller than the number of processes
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            encoder, objective = build_networks(config, images.channels, torch.device("meta"))
            objective.try_out(encoder.feature_spec, config.batch_size)
    except (ValueError, TypeError, OverflowError) as error:  # sizes beyond what a tensor can have are of these types
        raise UserError(one_line(error)) from None
    resnet = config.encoder.resnet
    if config.encoder.kind == "resnet" and resnet.norm == "batch":
        # Batch norm needs two numbers at least, of images or of places.
        smallest = min(a.size, a.local_size) if a.local_views else a.size
        with torch.device("meta"):
            places = math.prod(ResNet((images.channels, smallest, smallest), resnet).feature_spec.map_shape[1:])
        if config.batch_size // resnet.batch_norm_splits * places < 2:
            raise UserError(
                f"encoder.resnet.batch_norm_splits {resnet.batch_norm_splits} leaves batch norm a single value "
                f"at the last maps: take fewer parts of batch_size {config.batch_size}, or larger views"
            )
    wanted = 1 + max(spec.index for spec in (*objective.online_views, *objective.target_views))
    if a.views + a.local_views != wanted:
        takes_more = hasattr(getattr(config.objectives, config.method), "local_views")
        more = f" (objectives.{config.method}.local_views says more)" if takes_more else ""
        raise UserError(
            f"augment.views {a.views} and augment.local_views {a.local_views} must be {wanted} views together, "
            f"which is what {config.method} compares{more}"
        )
