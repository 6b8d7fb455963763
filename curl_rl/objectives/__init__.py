"""Self-supervised methods, one to a file; each serves reinforcement learning and vision through the same interface."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from curl_rl.encoders import Features, FeatureSpec
from curl_rl.objectives.base import BatchInfo, Objective, Result, ViewSpec
from curl_rl.objectives.curl import Curl, CurlConfig

ObjectiveName = Literal["curl", "none"]


@dataclass(frozen=True)
class ObjectiveConfigs:
    """Settings of each method; only those of the method in use matter."""

    curl: CurlConfig = field(default_factory=CurlConfig)
    """Bilinear momentum contrast between two crops."""


def build_objective(name: ObjectiveName, features: FeatureSpec, configs: ObjectiveConfigs) -> Objective | None:
    """The method called ``name`` for an encoder with these features; None for ``none``.

    Raises:
        ValueError: there is none of that name.
    """
    if name == "none":
        return None
    if name == "curl":
        return Curl(features, configs.curl)
    raise ValueError(f"unknown objective {name!r}: build_objective has no line for it")


__all__ = [
    "BatchInfo",
    "Curl",
    "CurlConfig",
    "FeatureSpec",
    "Features",
    "Objective",
    "ObjectiveConfigs",
    "ObjectiveName",
    "Result",
    "ViewSpec",
    "build_objective",
]
