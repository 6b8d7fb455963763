"""Quick-Thoughts: sentences find their neighbors in the text (Logeswaran & Lee 2018, arXiv 1803.02893).

Two encoders, f and g, read each sentence. f of a sentence must find g of the next one among those of the batch, by
inner product, and f of the next one g of the sentence before it. It is CPC over sentences without the bilinear form:
InfoNCE with the second encoder in its place. Sentences are represented by both encoders' vectors together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from curl_rl.encoders import Features, FeatureSpec
from curl_rl.losses import contrastive_accuracy, embedding_std, info_nce
from curl_rl.losses.half_precision import widened
from curl_rl.objectives.base import BatchInfo, Objective, Result, ViewSpec
from curl_rl.objectives.method import Method
from curl_rl.ranges import check_ranges, positive


@dataclass(frozen=True)
class QuickThoughtsConfig:
    """The candidates and the scores of Quick-Thoughts. The defaults are the paper's."""

    before: bool = True
    """Find the sentence before as well as the next one (a context of one sentence on either side)."""
    temperature: Annotated[float, positive] = 1.0
    """Temperature of the inner products."""

    def __post_init__(self) -> None:
        check_ranges(self, "objectives.quick_thoughts")


class QuickThoughts(Objective):
    """InfoNCE between the first tower's vector of a sentence and the second tower's of its neighbor.

    Raises:
        ValueError: the encoder does not have two towers.
    """

    online_views = (ViewSpec(0, modality="text"), ViewSpec(1, future=1, modality="text"))
    needs = frozenset({"text"})
    streams = 2

    def __init__(self, features: FeatureSpec, config: QuickThoughtsConfig = QuickThoughtsConfig()) -> None:
        super().__init__()
        if features.streams != 2:
            raise ValueError(
                f"objectives.quick_thoughts needs an encoder of two towers, got {features.streams}: take a "
                "TwoTowerTextEncoder"
            )
        self.config = config

    def forward(self, online: list[Features], target: list[Features], batch: BatchInfo) -> Result:
        (first, first_candidate), (second, second_candidate) = (widened(view.vector).chunk(2, 1) for view in online)
        logits = [first @ second_candidate.T / self.config.temperature]
        if self.config.before:
            logits.append(second @ first_candidate.T / self.config.temperature)
        metrics = {
            "accuracy": torch.stack([contrastive_accuracy(scores.detach()) for scores in logits]).mean(),
            "embedding_std": embedding_std(first.detach()),
        }
        loss: Tensor = torch.stack([info_nce(scores) for scores in logits]).mean()
        return Result(loss, metrics)


METHOD = Method(
    "quick_thoughts",
    QuickThoughts,
    QuickThoughtsConfig,
    paper="Logeswaran & Lee 2018, arXiv 1803.02893",
    summary="Recognition of the next and the last sentence of a text, by two encoders.",
    instead="cpc (scripts/pretrain_text.py trains on sentences)",
)
