"""Self-supervised methods, one to a file; each serves reinforcement learning and vision through the same interface."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from curl_rl.encoders import Features, FeatureSpec
from curl_rl.objectives.barlow import BarlowConfig, BarlowTwins
from curl_rl.objectives.base import BatchInfo, Objective, Result, ViewSpec
from curl_rl.objectives.byol import BYOL, BYOLConfig
from curl_rl.objectives.curl import Curl, CurlConfig
from curl_rl.objectives.moco import MoCo, MoCoConfig
from curl_rl.objectives.simclr import SimCLR, SimCLRConfig
from curl_rl.objectives.simsiam import SimSiam, SimSiamConfig

ObjectiveName = Literal["curl", "simclr", "moco", "byol", "simsiam", "barlow", "none"]


@dataclass(frozen=True)
class ObjectiveConfigs:
    """Settings of each method; only those of the method in use matter."""

    curl: CurlConfig = field(default_factory=CurlConfig)
    """Bilinear momentum contrast between two crops."""
    simclr: SimCLRConfig = field(default_factory=SimCLRConfig)
    """Contrast between two views, negatives from the batch."""
    moco: MoCoConfig = field(default_factory=MoCoConfig)
    """Contrast with the keys of a slow copy, negatives from a queue."""
    byol: BYOLConfig = field(default_factory=BYOLConfig)
    """Prediction of a slow copy's embedding, no negatives."""
    simsiam: SimSiamConfig = field(default_factory=SimSiamConfig)
    """Prediction of the other view's embedding behind a stopped gradient, no negatives."""
    barlow: BarlowConfig = field(default_factory=BarlowConfig)
    """Decorrelated features that two views agree on."""


def build_objective(name: ObjectiveName, features: FeatureSpec, configs: ObjectiveConfigs) -> Objective | None:
    """The method called ``name`` for an encoder with these features; None for ``none``.

    Raises:
        ValueError: there is none of that name.
    """
    if name == "none":
        return None
    if name == "curl":
        return Curl(features, configs.curl)
    if name == "simclr":
        return SimCLR(features, configs.simclr)
    if name == "moco":
        return MoCo(features, configs.moco)
    if name == "byol":
        return BYOL(features, configs.byol)
    if name == "simsiam":
        return SimSiam(features, configs.simsiam)
    if name == "barlow":
        return BarlowTwins(features, configs.barlow)
    raise ValueError(f"unknown objective {name!r}: build_objective has no line for it")


__all__ = [
    "BYOL",
    "BYOLConfig",
    "BarlowConfig",
    "BarlowTwins",
    "BatchInfo",
    "Curl",
    "CurlConfig",
    "FeatureSpec",
    "Features",
    "MoCo",
    "MoCoConfig",
    "Objective",
    "ObjectiveConfigs",
    "ObjectiveName",
    "Result",
    "SimCLR",
    "SimCLRConfig",
    "SimSiam",
    "SimSiamConfig",
    "ViewSpec",
    "build_objective",
]
