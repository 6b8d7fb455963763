"""SimCLR: a simple framework for contrastive learning (Chen et al. 2020, arXiv 2002.05709, and v2, arXiv 2006.10029).

Two augmented views of each image through one encoder and one head; each of the 2N embeddings has to find its partner
among the 2N − 1 others, at a temperature, by cosine. The paper's ablations and two corrections of its loss are options.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from curl_rl.encoders import Features, FeatureSpec
from curl_rl.encoders.heads import MLP
from curl_rl.losses import (
    PairScores,
    alignment,
    embedding_std,
    nt_logistic,
    nt_xent,
    pair_accuracy,
    semi_hard_triplet,
    two_view_scores,
)
from curl_rl.objectives.base import BatchInfo, Objective, Result, ViewSpec
from curl_rl.objectives.method import Method
from curl_rl.ranges import at_least, check_ranges, positive, within, zero_or_more


@dataclass(frozen=True)
class SimCLRConfig:
    """The head and the loss of SimCLR. The defaults are the paper's."""

    temperature: Annotated[float, positive] = 0.1
    """Temperature of the similarities, which margin_triplet has none of; the paper takes 0.5 for CIFAR-10."""
    head_layers: Annotated[int, zero_or_more("no head")] = 2
    """Layers of the projection head: 2, SimCLR's; 3, v2's; 1, linear; 0, none, so that the features are compared."""
    hidden: Annotated[int | None, at_least(1)] = None
    """Width of the head's hidden layers. [default: the features' own, as in the paper]"""
    dim: Annotated[int, at_least(1)] = 128
    """Size of the embeddings that are compared."""
    normalize: bool = True
    """Compare by cosine; False, by inner product (the ablation of the paper's Table 5)."""
    loss: Literal["nt_xent", "nt_logistic", "margin_triplet"] = "nt_xent"
    """nt_xent: SimCLR's cross-entropy. nt_logistic: each pair classified by itself. margin_triplet: the semi-hard
    negative, less similar than the positive by less than the margin, is pushed out of it. (Table 4.)"""
    margin: Annotated[float, positive] = 0.2
    """By how much margin_triplet wants the positive to be more similar than a negative."""
    tau_plus: Annotated[float, within("[0, 1)")] = 0.0
    """For nt_xent: share of negatives that are in truth of the same class, taken out on average (Chuang et al. 2020,
    "Debiased contrastive learning"); 0 is plain SimCLR, 0.1 fits ten classes."""
    beta: Annotated[float, at_least(0)] = 0.0
    """For nt_xent: how much more weight the harder negatives get (Robinson et al. 2020, "Contrastive learning with hard
    negative samples"); 0 is plain SimCLR, theirs is 1 or so."""

    def __post_init__(self) -> None:
        check_ranges(self, "objectives.simclr")
        if (self.tau_plus or self.beta) and self.loss != "nt_xent":
            raise ValueError(
                f"objectives.simclr.tau_plus {self.tau_plus} and beta {self.beta} correct the loss nt_xent alone: "
                f"set both to 0 for {self.loss}"
            )
        if self.tau_plus and not self.normalize:
            raise ValueError(
                f"objectives.simclr.tau_plus {self.tau_plus} needs normalize true: its bound is that of unit vectors"
            )


class SimCLR(Objective):
    """Contrast between two views of each image, negatives from the batch.

    ``head.layers`` can be sliced: fine-tuning from the middle of the head keeps ``head.layers[:1]`` (v2, section 2).
    """

    online_views = (ViewSpec(0), ViewSpec(1))
    views_together = True

    def __init__(self, features: FeatureSpec, config: SimCLRConfig = SimCLRConfig()) -> None:
        super().__init__()
        self.config = config
        hidden = config.hidden if config.hidden is not None else features.dim
        sizes = [features.dim, *[hidden] * (config.head_layers - 1), *[config.dim] * (config.head_layers > 0)]
        self.head = MLP(sizes, batch_norm=True, last="scaled")

    def forward(self, online: list[Features], target: list[Features], batch: BatchInfo) -> Result:
        # Both views together, so that batch norm in the head takes its statistics over all 2N, as in the released code.
        first, second = self.head(torch.cat([view.vector for view in online])).chunk(2)
        if self.config.normalize:
            first, second = F.normalize(first), F.normalize(second)
        scores = two_view_scores(first, second)
        metrics = {
            "accuracy": pair_accuracy(scores),
            "embedding_std": embedding_std(first.detach()),
            "alignment": alignment(first.detach(), second.detach()),
        }
        return Result(self._loss(scores), metrics)

    def projection_head(self) -> MLP:
        return self.head

    def _loss(self, scores: PairScores) -> Tensor:
        c = self.config
        if c.loss == "nt_logistic":
            return nt_logistic(scores, c.temperature)
        if c.loss == "margin_triplet":
            return semi_hard_triplet(scores, c.margin)
        return nt_xent(scores, c.temperature, tau_plus=c.tau_plus, beta=c.beta)


METHOD = Method(
    "simclr",
    SimCLR,
    SimCLRConfig,
    paper="Chen et al. 2020, arXiv 2002.05709",
    summary="Contrast between two views, negatives from the batch.",
)
