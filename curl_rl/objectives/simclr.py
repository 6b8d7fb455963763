"""SimCLR: a simple framework for contrastive learning (Chen et al. 2020, arXiv 2002.05709, and v2, arXiv 2006.10029).

Two augmented views of each image pass through one encoder and one head; each of the 2N embeddings must find its partner
among the 2N − 1 others, by cosine at a temperature. The paper's ablations and two corrections of its loss are options.
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
    """Temperature of the similarities, not used by margin_triplet; the paper uses 0.5 for CIFAR-10."""
    head_layers: Annotated[int, zero_or_more("no head")] = 2
    """Number of layers of the projection head. 2: SimCLR; 3: v2; 1: linear; 0: no head, the features are compared."""
    hidden: Annotated[int | None, at_least(1)] = None
    """Width of the head's hidden layers. [default: the features' own, as in the paper]"""
    dim: Annotated[int, at_least(1)] = 128
    """Size of the compared embeddings."""
    normalize: bool = True
    """Compare by cosine; if False, by inner product (the ablation of the paper's Table 5)."""
    loss: Literal["nt_xent", "nt_logistic", "margin_triplet"] = "nt_xent"
    """nt_xent: SimCLR's cross-entropy. nt_logistic: each pair is classified separately. margin_triplet: pushes the
    semi-hard negative, less similar than the positive by less than the margin, beyond the margin. (Table 4.)"""
    loss_scale: Annotated[float, positive] = 1.0
    """Factor on the loss, a mean over all 2B views, and so on the gradient. The released code adds the means over each
    half, which is twice that. LARS's adapted steps hide a factor; those of biases and norms, and weight decay's share
    of the gradient, do not."""
    margin: Annotated[float, positive] = 0.2
    """For margin_triplet: required difference between the similarities of the positive and of a negative."""
    tau_plus: Annotated[float, within("[0, 1)")] = 0.0
    """For nt_xent: fraction of negatives that actually share the query's class, removed on average (Chuang et al. 2020,
    "Debiased contrastive learning"); 0 is plain SimCLR, 0.1 suits ten classes."""
    beta: Annotated[float, at_least(0)] = 0.0
    """For nt_xent: strength of the extra weight on hard negatives (Robinson et al. 2020, "Contrastive learning with
    hard negative samples"); 0 is plain SimCLR, the paper uses about 1."""

    def __post_init__(self) -> None:
        check_ranges(self, "objectives.simclr")
        if (self.tau_plus or self.beta) and self.loss != "nt_xent":
            raise ValueError(
                f"objectives.simclr.tau_plus {self.tau_plus} and beta {self.beta} apply only to the loss nt_xent: "
                f"set both to 0 for {self.loss}"
            )
        if self.tau_plus and not self.normalize:
            raise ValueError(
                f"objectives.simclr.tau_plus {self.tau_plus} needs normalize true: its bound assumes unit vectors"
            )


class SimCLR(Objective):
    """Contrast between two views of each image, with negatives from the batch.

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
        # Both views together: batch norm in the head takes its statistics over all 2N, as in the released code.
        first, second = self.head(torch.cat([view.vector for view in online])).chunk(2)
        if self.config.normalize:
            first, second = F.normalize(first), F.normalize(second)
        scores = two_view_scores(first, second)
        metrics = {
            "accuracy": pair_accuracy(scores),
            "embedding_std": embedding_std(first.detach()),
            "alignment": alignment(first.detach(), second.detach()),
        }
        return Result(self.config.loss_scale * self._loss(scores), metrics)

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
