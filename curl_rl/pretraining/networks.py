"""The networks that a run's settings describe."""

from __future__ import annotations

import torch

from curl_rl.encoders import Encoder, PixelEncoder, ResNet
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
    """Encoder and objective, on the CPU, their weights from the global generator.

    Args:
        settings: of the run.
        shape: ``(C, H, W)`` of a view.
        device: on which they will be, which decides the precision.
        data: sizes of the data, for methods that depend on them.
        user: what the data offer; None, whatever a method needs.

    Raises:
        ValueError: the views are too small for the encoder, a field does not fit another, or the data lack what the
            method needs.
    """
    precision = resolve_precision(settings.encoder.precision, device)
    encoder: Encoder
    if settings.encoder.kind == "resnet":
        encoder = ResNet(shape, settings.encoder.resnet, precision)
    else:
        encoder = PixelEncoder(shape, settings.encoder.pixel, precision)
    objective = build_objective(settings.method, encoder.feature_spec, settings.objectives, data, user)
    if objective is None:
        raise ValueError(f"method must be one that trains, got {settings.method}")
    return encoder, objective
