"""Builds the networks described by a run's settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import torch

from curl_rl.encoders import (
    Encoder,
    PatchEncoder,
    PixelEncoder,
    ResNet,
    TextEncoder,
    TwoStreamEncoder,
    TwoTowerTextEncoder,
)
from curl_rl.objectives import METHODS, DataSpec, Modality, Objective, ObjectiveUser, build_objective
from curl_rl.pretraining.config import BackboneConfig, Settings, TextBackboneConfig
from curl_rl.runs.compute import resolve_precision

Shape = tuple[int, int, int]


class Networks(NamedTuple):
    """What a run trains."""

    encoder: Encoder
    """Encoder of images, or of texts if the data have nothing else."""
    objective: Objective
    text_encoder: Encoder | None = None
    """Encoder of texts, if the data have images as well."""

    @property
    def encoders(self) -> tuple[Encoder, ...]:
        """The encoders, one or two."""
        return (self.encoder,) if self.text_encoder is None else (self.encoder, self.text_encoder)


def build_networks(
    settings: Settings,
    shapes: Mapping[Modality, Shape],
    device: torch.device,
    data: DataSpec = DataSpec(),  # noqa: B008 (frozen)
    user: ObjectiveUser | None = None,
) -> Networks:
    """Builds encoders and objective on the CPU, with weights drawn from the global generator.

    Args:
        settings: the run's settings.
        shapes: input shapes of the encoders, by the kind of input (:class:`~curl_rl.pretraining.sources.Source`).
        device: the device they will run on, which decides the precision.
        data: sizes of the data, for methods that depend on them.
        user: what the data offer; None, everything any method needs.

    Raises:
        ValueError: the views are too small for the encoder, two fields contradict each other, or the data lack
            something the method needs.
    """
    towers = METHODS[settings.method].objective.streams if settings.method in METHODS else 1
    built = {kind: _encoder(settings.encoders[kind], shape, device, towers) for kind, shape in shapes.items()}
    encoder, text_encoder = (built["image"], built.get("text")) if "image" in built else (built["text"], None)
    if text_encoder is not None:
        data = replace(data, text=text_encoder.feature_spec)
    objective = build_objective(settings.method, encoder.feature_spec, settings.objectives, data, user)
    if objective is None:
        raise ValueError(f"method must be one that trains, got {settings.method}")
    _check_inputs(settings.method, objective, shapes)
    return Networks(encoder, objective, text_encoder)


def _encoder(config: BackboneConfig | TextBackboneConfig, shape: Shape, device: torch.device, towers: int) -> Encoder:
    """An encoder; one of texts has two towers for a method that compares two. (Images have ``encoder.split``.)"""
    precision = resolve_precision(config.precision, device)
    if isinstance(config, TextBackboneConfig):
        return (TextEncoder if towers == 1 else TwoTowerTextEncoder)(shape, config.text, precision)
    if config.split != "none":
        return TwoStreamEncoder(shape, config.resnet, config.split, precision)
    if config.kind == "resnet":
        trunk = ResNet(shape, config.resnet, precision)
        return PatchEncoder(trunk, config.patch) if config.patch else trunk
    return PixelEncoder(shape, config.pixel, precision)


def _check_inputs(method: str, objective: Objective, shapes: Mapping[Modality, Shape]) -> None:
    """Refuses a method whose views are of a kind that the data do not have, such as pictures of sentences."""
    views = (*objective.online_views, *objective.target_views)
    if any(spec.modality not in shapes for spec in views):
        command = "pretrain_vision.py" if "text" in shapes else "pretrain_text.py"
        kinds = " and ".join(f"{kind}s" for kind in shapes)
        lacking = next(spec.modality for spec in views if spec.modality not in shapes)
        raise ValueError(f"method {method} compares {lacking}s, and the data are {kinds}: use scripts/{command}")
