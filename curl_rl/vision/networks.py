"""Builds the networks described by an image run's settings."""

from __future__ import annotations

import torch

from curl_rl.encoders import Encoder
from curl_rl.objectives import DataSpec, Objective
from curl_rl.pretraining import networks
from curl_rl.vision.config import VisionConfig


def build_networks(
    config: VisionConfig,
    channels: int,
    device: torch.device,
    data: DataSpec = DataSpec(),  # noqa: B008 (frozen)
) -> tuple[Encoder, Objective]:
    """As :func:`curl_rl.pretraining.networks.build_networks`, for images with this number of channels."""
    shape = channels, config.augment.size, config.augment.size
    return networks.build_networks(config, {"image": shape}, device, data)[:2]
