"""Loads a run's images: a folder, a built-in set, or observations from recorded frames."""

from __future__ import annotations

import torch

from curl_rl.recordings.store import is_recording
from curl_rl.vision.config import VisionConfig
from curl_rl.vision.data import load
from curl_rl.vision.data.image_sets import ImageSet, Split
from curl_rl.vision.data.recorded import load_stacks


def images_of(config: VisionConfig, split: Split, device: torch.device) -> ImageSet:
    """The images or frame stacks that a run is trained (train) or tested (test) on.

    Raises:
        UserError: as in :func:`curl_rl.vision.data.load` and :func:`curl_rl.vision.data.recorded.load_stacks`.
    """
    c, f = config.compute, config.frames
    if is_recording(config.data):
        return load_stacks(
            config.data,
            split,
            stack=f.stack,
            device=device,
            storage=c.storage,
        )
    return load(
        config.data,
        split,
        config.image_size,
        device=device,
        storage=c.storage,
        workers=c.workers,
        small_images=config.small_images,
    )
