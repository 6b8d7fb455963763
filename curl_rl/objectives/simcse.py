"""SimCSE: contrastive learning of sentence embeddings (Gao, Yao & Chen 2021, arXiv 2104.08821).

Unsupervised, each sentence is encoded twice; the two passes differ only in the encoder's noise, its dropout, and each
embedding must find its twin among those of the batch. Supervised, the twin is another sentence of the same meaning, and
a third one of another meaning joins the negatives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curl_rl.encoders import Features, FeatureSpec
from curl_rl.losses import alignment, contrastive_accuracy, embedding_std, info_nce
from curl_rl.losses.half_precision import widened
from curl_rl.objectives.base import BatchInfo, Objective, Result, ViewSpec
from curl_rl.objectives.method import Method
from curl_rl.ranges import check_ranges, positive, positive_finite


@dataclass(frozen=True)
class SimCSEConfig:
    """The head and the loss of SimCSE. The defaults are the paper's for unsupervised training."""

    temperature: Annotated[float, positive] = 0.05
    """Temperature of the cosines."""
    head: bool = True
    """Compare the outputs of a layer with tanh, which is dropped after training (the paper's unsupervised setting).
    Otherwise the vectors themselves are compared, and nothing is dropped."""
    hard_negatives: bool = False
    """Each sentence has a hard negative, the third column of the file, which joins the negatives of the whole batch."""
    hard_weight: Annotated[float, positive_finite] = 1.0
    """Weight α of a sentence's own hard negative in its denominator; 1, it weighs as all others."""

    def __post_init__(self) -> None:
        check_ranges(self, "objectives.simcse")


class SimCSE(Objective):
    """Cross-entropy of finding each sentence's positive among all positives, and hard negatives, of the batch.

    Views 0 and 1 are the sentence and its positive; with dropout as the only noise, the same sentence twice. View 2, if
    there are hard negatives, is that of the sentence.
    """

    needs = frozenset({"text"})

    def __init__(self, features: FeatureSpec, config: SimCSEConfig = SimCSEConfig()) -> None:
        super().__init__()
        self.config = config
        views = 3 if config.hard_negatives else 2
        self.online_views = tuple(ViewSpec(index, modality="text") for index in range(views))
        self.head: nn.Module = nn.Identity()
        if config.head:
            self.head = nn.Sequential(nn.Linear(features.dim, features.dim), nn.Tanh())

    def forward(self, online: list[Features], target: list[Features], batch: BatchInfo) -> Result:
        first, second, *hard = (F.normalize(widened(self.head(view.vector))) for view in online)
        if len(first) < 2:
            raise ValueError(
                f"negatives from the batch need at least 2 samples in a batch (batch_size), got {len(first)}"
            )
        logits = first @ torch.cat([second, *hard]).T / self.config.temperature
        if hard and self.config.hard_weight != 1:
            logits = logits + self._own_hard(logits) * math.log(self.config.hard_weight)
        seen = logits.detach()
        metrics = {
            "accuracy": contrastive_accuracy(seen),
            "embedding_std": embedding_std(first.detach()),
            "alignment": alignment(first.detach(), second.detach()),
        }
        return Result(info_nce(logits), metrics)

    @staticmethod
    def _own_hard(logits: Tensor) -> Tensor:
        """``(B, 2B)``: 1 where the column is the row's own hard negative, else 0."""
        own = torch.eye(len(logits), dtype=logits.dtype, device=logits.device)
        return torch.cat([torch.zeros_like(own), own], 1)


METHOD = Method(
    "simcse",
    SimCSE,
    SimCSEConfig,
    paper="Gao et al. 2021, arXiv 2104.08821",
    summary="Contrast between two passes of a sentence, or a sentence and another of the same meaning.",
    instead="simclr (scripts/pretrain_text.py trains on sentences)",
)
