"""Checks that the images fit a run's settings, made before any run directory is touched."""

from __future__ import annotations

from curl_rl.objectives import Objective, ObjectiveUser
from curl_rl.pretraining.checks import check_warmup, try_out
from curl_rl.recordings.store import is_recording
from curl_rl.runs.errors import UserError
from curl_rl.vision.config import VisionConfig
from curl_rl.vision.data.image_sets import ImageSet
from curl_rl.vision.source import data_of, offered_by
from curl_rl.vision.views import refusal_of_stacks


def check_run(config: VisionConfig, images: ImageSet, *, fresh: bool = False) -> Objective:
    """Checks settings that can only be checked against the images, before anything is written or set aside.

    Args:
        config: the run's settings.
        images: the images to train on.
        fresh: whether an earlier run in the directory will be set aside.

    Returns:
        The objective, without weights, which names the views it needs.

    Raises:
        UserError: the batch, the schedule, the views, the network, the method and the images do not fit together, or
            the checkpoints do not fit on the disk.
    """
    images.batches(config.batch_size)  # refuses a batch larger than the set
    check_warmup(config, images.batches_per_epoch(config.batch_size))
    _check_sizes(config, images)
    a = config.augment
    user = ObjectiveUser("method", images.name, offered_by(images))
    smallest = min(a.size, a.local_size) if a.local_views else a.size
    shape = images.channels, a.size, a.size
    objective = try_out(config, {"image": shape}, data_of(images), user, smallest_side=smallest, fresh=fresh)
    wanted = 1 + max(spec.index for spec in (*objective.online_views, *objective.target_views))
    if a.views + a.local_views != wanted:
        takes_more = hasattr(getattr(config.objectives, config.method, None), "local_views")
        more = f" (see objectives.{config.method}.local_views)" if takes_more else ""
        raise UserError(
            f"augment.views {a.views} and augment.local_views {a.local_views} must add up to {wanted}, "
            f"the number of views that {config.method} compares{more}"
        )
    return objective


def _check_sizes(config: VisionConfig, images: ImageSet) -> None:
    a = config.augment
    if images.channels != 3 and (reason := refusal_of_stacks(a)):
        raise UserError(reason)
    if is_recording(config.data) and config.image_size not in (None, images.size):
        raise UserError(
            f"image_size {config.image_size} is not the size of the recorded frames, which are {images.size}×"
            f"{images.size} and are not scaled: use --preset frames, or leave image_size out"
        )
    for name, size in (("size", a.size), ("local_size", a.local_size if a.local_views else 0)):
        if size > images.size:
            raise UserError(
                f"augment.{name} {size} is larger than the images of {images.name}, which are {images.size}×"
                f"{images.size}: set it to {images.size} or less, or raise image_size"
            )
    if config.encoder.kind == "pixel" and a.local_views and a.local_size != a.size:
        raise UserError(
            f"augment.local_size {a.local_size} is not augment.size {a.size}, and a pixel encoder takes images of one "
            "size: make them equal, or use --encoder.kind resnet"
        )
