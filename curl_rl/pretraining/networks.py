"""Builds the networks described by a run's settings."""

from __future__ import annotations

import torch

from curl_rl.encoders import Encoder, PatchEncoder, PixelEncoder, ResNet, TwoStreamEncoder
from curl_rl.objectives import DataSpec, Objective, ObjectiveUser, build_objective
from curl_rl.pretraining.config import Settings
from curl_rl.runs.compute import resolve_precision


def build_networks(
    settings: Settings,
    shape: tuple[int, int, int],
    device: torch.device,
    data: DataSpec = DataSpec(),  # noqa: B008 (frozen)
    user: ObjectiveUser | None = None,
) -> tuple[Encoder, Objective]:
    """Builds encoder and objective on the CPU, with weights drawn from the global generator.

    Args:
        settings: the run's settings.
        shape: ``(C, H, W)`` of a view.
        device: the device they will run on, which decides the precision.
        data: sizes of the data, for methods that depend on them.
        user: what the data offer; None, everything any method needs.

    Raises:
        ValueError: the views are too small for the encoder, two fields contradict each other, or the data lack
            something the method needs.
    """
    precision = resolve_precision(settings.encoder.precision, device)
    encoder: Encoder
    if settings.encoder.split != "none":
        encoder = TwoStreamEncoder(shape, settings.encoder.resnet, settings.encoder.split, precision)
    elif settings.encoder.kind == "resnet":
        trunk = ResNet(shape, settings.encoder.resnet, precision)
        encoder = PatchEncoder(trunk, settings.encoder.patch) if settings.encoder.patch else trunk
    else:
        encoder = PixelEncoder(shape, settings.encoder.pixel, precision)
    objective = build_objective(settings.method, encoder.feature_spec, settings.objectives, data, user)
    if objective is None:
        raise ValueError(f"method must be one that trains, got {settings.method}")
    return encoder, objective
