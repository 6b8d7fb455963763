"""The networks that a run's settings describe."""

from __future__ import annotations

import torch

from curl_rl.encoders import Encoder, PixelEncoder, ResNet
from curl_rl.objectives import Objective, build_objective
from curl_rl.runs.compute import resolve_precision
from curl_rl.vision.config import VisionConfig


def build_networks(config: VisionConfig, channels: int, device: torch.device) -> tuple[Encoder, Objective]:
    """Encoder and objective for images of so many channels, on the CPU, their weights from the global generator.

    ``device`` decides the precision.

    Raises:
        ValueError: the views are too small for the encoder, or a field does not fit another.
    """
    shape = (channels, config.augment.size, config.augment.size)
    precision = resolve_precision(config.encoder.precision, device)
    encoder: Encoder
    if config.encoder.kind == "resnet":
        encoder = ResNet(shape, config.encoder.resnet, precision)
    else:
        encoder = PixelEncoder(shape, config.encoder.pixel, precision)
    objective = build_objective(config.method, encoder.feature_spec, config.objectives)
    assert objective is not None
    return encoder, objective
