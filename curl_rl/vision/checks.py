"""Checks that the images fit a run's settings, made before any run directory is touched."""

from __future__ import annotations

from curl_rl.objectives import Objective, ObjectiveUser
from curl_rl.pretraining.checks import check_warmup, try_out
from curl_rl.recordings.store import is_recording
from curl_rl.runs.errors import UserError
from curl_rl.vision.config import VisionConfig
from curl_rl.vision.data.image_sets import ImageSet
from curl_rl.vision.source import data_of, offered_by
from curl_rl.vision.views import AugmentConfig, refusal_of_stacks


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
    takes_more = hasattr(getattr(config.objectives, config.method, None), "local_views")
    more = f" (see objectives.{config.method}.local_views)" if takes_more else ""
    check_number_of_views(a, objective, f"{config.method} compares{more}")
    return objective


def check_number_of_views(augment: AugmentConfig, objective: Objective, who: str) -> None:
    """Checks that the recipe makes as many views of an image as the method asks for.

    Args:
        augment: the recipe.
        objective: the method.
        who: end of the message, such as ``simclr compares``.

    Raises:
        UserError: it makes more or fewer.
    """
    specs = (*objective.online_views, *objective.target_views)
    wanted = 1 + max(spec.index for spec in specs if spec.modality == "image")
    if augment.views + augment.local_views != wanted:
        raise UserError(
            f"augment.views {augment.views} and augment.local_views {augment.local_views} must add up to {wanted}, "
            f"the number of views that {who}"
        )


def check_sizes(augment: AugmentConfig, images: ImageSet) -> None:
    """Checks that no view is larger than the images.

    Raises:
        UserError: one is.
    """
    for name, size in (("size", augment.size), ("local_size", augment.local_size if augment.local_views else 0)):
        if size > images.size:
            raise UserError(
                f"augment.{name} {size} is larger than the images of {images.name}, which are {images.size}×"
                f"{images.size}: set it to {images.size} or less, or raise image_size"
            )


def _check_sizes(config: VisionConfig, images: ImageSet) -> None:
    a = config.augment
    if images.channels != 3 and (reason := refusal_of_stacks(a)):
        raise UserError(reason)
    if is_recording(config.data) and config.image_size not in (None, images.size):
        raise UserError(
            f"image_size {config.image_size} is not the size of the recorded frames, which are {images.size}×"
            f"{images.size} and are not scaled: use --preset frames, or leave image_size out"
        )
    check_sizes(a, images)
    if config.encoder.kind == "pixel" and a.local_views and a.local_size != a.size:
        raise UserError(
            f"augment.local_size {a.local_size} is not augment.size {a.size}, and a pixel encoder takes images of one "
            "size: make them equal, or use --encoder.kind resnet"
        )
