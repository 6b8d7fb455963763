"""Pairs of a noise picture and a random text, and an objective that matches them with slow copies of both encoders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curl_rl.encoders import Features, FeatureSpec, TextEncoderConfig
from curl_rl.objectives import BatchInfo, DataSpec, Method, Modality, Need, Objective, Result, ViewSpec
from curl_rl.pretraining.config import BackboneConfig, TextBackboneConfig
from helpers.noise_source import COUNT, SIDE, NoiseSource, Plan

IMAGE, TEXT = ViewSpec(0), ViewSpec(0, modality="text")
TOKENS = (13, 1, 5)
SMALL_TEXT = TextEncoderConfig(width=8, layers=1, heads=2)
TEXT_ENCODER = TextBackboneConfig(SMALL_TEXT, "float32")


@dataclass(frozen=True)
class MatchedConfig:
    """No settings."""


class Matched(Objective):
    """Each image's vector scores the slow vectors of all texts, and each text's those of all images."""

    online_views = (IMAGE, TEXT)
    target_views = (IMAGE, TEXT)
    needs = frozenset[Need]({"text"})

    def __init__(self, features: FeatureSpec, config: MatchedConfig = MatchedConfig(), *, texts: FeatureSpec) -> None:
        super().__init__()
        self.form = nn.Linear(features.dim, texts.dim, bias=False)

    @classmethod
    def build(cls, features: FeatureSpec, config: MatchedConfig, data: DataSpec) -> Matched:
        assert data.text is not None
        return cls(features, config, texts=data.text)

    def forward(self, online: list[Features], target: list[Features], batch: BatchInfo) -> Result:
        (image, text), (slow_image, slow_text) = online, target
        own = torch.arange(len(image.vector))
        there = F.cross_entropy(self.form(image.vector) @ slow_text.vector.T, own)
        back = F.cross_entropy(text.vector @ self.form(slow_image.vector).T, own)
        return Result(there + back, {"there": there.detach()})

    def momentum(self, progress: Tensor) -> Tensor:
        return torch.full_like(progress, 0.8)


MATCHED = Method("matched", Matched, MatchedConfig, paper="none", summary="Pairs.")


@dataclass(frozen=True)
class PairPlan(Plan):
    """The settings of a run on pairs, or on their texts alone."""

    method: str = "matched"
    text: TextBackboneConfig = TEXT_ENCODER

    @property
    def encoders(self) -> dict[Modality, BackboneConfig | TextBackboneConfig]:
        return {"image": self.encoder, "text": self.text}


class PairSource(NoiseSource):
    """The noise of :class:`NoiseSource`, each picture with a text."""

    has: frozenset[Need] = frozenset({"indices", "epochs", "text"})
    shapes: Mapping[Modality, tuple[int, int, int]] = MappingProxyType({"image": (3, SIDE, SIDE), "text": TOKENS})

    def views(self, batch: BatchInfo, generator: torch.Generator) -> dict[ViewSpec, Tensor]:
        assert batch.indices is not None
        return {**super().views(batch, generator), TEXT: texts()[batch.indices]}


def texts() -> Tensor:
    """``(COUNT, L)`` tokens of texts of different lengths."""
    vocabulary, _, longest = TOKENS
    tokens = torch.randint(3, vocabulary, (COUNT, longest), generator=torch.Generator().manual_seed(1))
    lengths = 2 + torch.arange(COUNT) % (longest - 1)
    return tokens * (torch.arange(longest) < lengths[:, None])


def pair_plan(directory: Path, **changes: Any) -> PairPlan:
    return replace(PairPlan(directory), **changes)
