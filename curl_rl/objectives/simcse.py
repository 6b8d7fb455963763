"""SimCSE: contrastive learning of sentence embeddings (Gao, Yao & Chen 2021, arXiv 2104.08821).

Unsupervised, each sentence is encoded twice; the two passes differ only in the encoder's noise, its dropout, and each
embedding must find its twin among those of the batch. Supervised, the twin is another sentence of the same meaning, and
a third one of another meaning joins the negatives. In either, the loss may include the prediction of tokens hidden in a
further view.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curl_rl.encoders import Features, FeatureSpec
from curl_rl.encoders.text import PADDING
from curl_rl.losses import alignment, contrastive_accuracy, embedding_std, info_nce, unit_rows
from curl_rl.losses.half_precision import widened
from curl_rl.objectives.base import BatchInfo, DataSpec, Need, Objective, Result, ViewSpec
from curl_rl.objectives.method import Method
from curl_rl.ranges import at_least, check_ranges, positive, positive_finite


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
    masked_weight: Annotated[float, at_least(0)] = 0.0
    """Weight of predicting the hidden tokens of a masked view (masked-language modeling); 0: there is no such view. 0.1
    in the paper."""

    def __post_init__(self) -> None:
        check_ranges(self, "objectives.simcse")


class SimCSE(Objective):
    """Cross-entropy of finding each sentence's positive among all positives, and hard negatives, of the batch.

    Views 0 and 1 are the sentence and its positive; with dropout as the only noise, the same sentence twice. View 2, if
    there are hard negatives, is that of the sentence. The last view, if tokens are predicted, is the masked sentence.

    Args:
        features: sizes of the encoder's features.
        config: settings.
        vocabulary: number of tokens, padding included, if tokens are predicted.

    Raises:
        ValueError: tokens are to be predicted, and ``vocabulary`` is None; in ``forward``, the batch has 1 sample.
    """

    needs = frozenset[Need]({"text"})

    def __init__(
        self, features: FeatureSpec, config: SimCSEConfig = SimCSEConfig(), vocabulary: int | None = None
    ) -> None:
        super().__init__()
        self.config = config
        views = 3 if config.hard_negatives else 2
        self.online_views = tuple(ViewSpec(index, modality="text") for index in range(views))
        self.head: nn.Module = nn.Identity()
        if config.head:
            self.head = nn.Sequential(nn.Linear(features.dim, features.dim), nn.Tanh())
        self.token_head: nn.Module | None = None
        if config.masked_weight:
            if vocabulary is None:
                raise ValueError(
                    "objectives.simcse.masked_weight needs the number of tokens, got none: give "
                    "data=DataSpec(vocabulary=...), or set it to 0"
                )
            self.online_views += (ViewSpec(0, modality="text", masked=True),)
            self.needs, self.reads_maps = self.needs | {"hidden"}, True
            # BERT's, with weights of its own for the tokens, as in the released code.
            width = features.map_shape[0]
            self.token_head = nn.Sequential(
                nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width), nn.Linear(width, vocabulary)
            )

    @classmethod
    def build(cls, features: FeatureSpec, config: SimCSEConfig, data: DataSpec) -> SimCSE:
        return cls(features, config, data.vocabulary)

    def forward(self, online: list[Features], target: list[Features], batch: BatchInfo) -> Result:
        texts = online if self.token_head is None else online[:-1]
        first, second, *hard = (unit_rows(self.head(view.vector)) for view in texts)
        if len(first) < 2:
            raise ValueError(
                f"negatives from the batch need at least 2 samples in a batch (batch_size), got {len(first)}"
            )
        keys = torch.cat([second, *hard]) if hard else second
        logits = first @ keys.T / self.config.temperature
        if hard and self.config.hard_weight != 1:
            logits = logits + self._own_hard(logits) * math.log(self.config.hard_weight)
        seen = logits.detach()
        metrics = {
            "accuracy": contrastive_accuracy(seen),
            "embedding_std": embedding_std(first.detach(), unit=True),
            "alignment": alignment(first.detach(), second.detach(), unit=True),
        }
        loss = info_nce(logits)
        if self.token_head is not None:
            assert batch.hidden is not None, "users refuse unmet needs"
            token_loss, metrics["token_accuracy"] = self._predicted(self.token_head, online[-1], batch.hidden)
            metrics["token_loss"] = token_loss.detach()
            loss = loss + self.config.masked_weight * token_loss
        return Result(loss, metrics)

    @staticmethod
    def _predicted(head: nn.Module, view: Features, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """The mean cross-entropy of the hidden tokens, and the share of them that score highest; 0 without any."""
        places, tokens = hidden.unbind(2)
        # Only at these places, since the scores of all would be the largest tensor of the step.
        states = view.map.to(view.vector.dtype).flatten(2).transpose(1, 2)
        states = states.gather(1, places.unsqueeze(2).expand(-1, -1, states.shape[2]))
        scores, tokens = widened(head(states)).flatten(0, 1), tokens.flatten()
        count = (tokens != PADDING).sum().clamp(min=1)
        loss = F.cross_entropy(scores, tokens, ignore_index=PADDING, reduction="sum") / count
        right = (scores.detach().argmax(1) == tokens) & (tokens != PADDING)
        return loss, right.sum() / count

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
