"""SupCon: supervised contrastive learning (Khosla et al. 2020, arXiv 2004.11362).

SimCLR with labels: every view of an image of the same class is a positive, all other views of the batch are negatives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F

from curl_rl.encoders import Features, FeatureSpec
from curl_rl.encoders.heads import MLP
from curl_rl.losses import alignment, class_accuracy, embedding_std, supervised_nt_xent
from curl_rl.losses.half_precision import widened
from curl_rl.objectives.base import BatchInfo, DataSpec, Objective, Result, ViewSpec
from curl_rl.objectives.method import Method
from curl_rl.objectives.metric import refuse_one_class, two_view_classes
from curl_rl.ranges import at_least, check_ranges, positive


@dataclass(frozen=True)
class SupConConfig:
    """Head and temperature of SupCon. The defaults are the paper's."""

    temperature: Annotated[float, positive] = 0.1
    """Temperature of the cosines."""
    hidden: Annotated[int | None, at_least(1)] = None
    """Width of the head's hidden layer. [default: the features' own, as the paper's 2048]"""
    dim: Annotated[int, at_least(1)] = 128
    """Size of the embeddings."""

    def __post_init__(self) -> None:
        check_ranges(self, "objectives.supcon")


class SupCon(Objective):
    """Contrast between the views of different classes. A negative label stands for none: a class of its own.

    Raises:
        ValueError: in ``forward``, the batch has 1 sample.
    """

    online_views = (ViewSpec(0), ViewSpec(1))
    views_together = True
    needs = frozenset({"labels"})

    def __init__(self, features: FeatureSpec, config: SupConConfig = SupConConfig()) -> None:
        super().__init__()
        self.config = config
        hidden = config.hidden if config.hidden is not None else features.dim
        self.head = MLP([features.dim, hidden, config.dim], batch_norm=False, last="affine")

    @classmethod
    def build(cls, features: FeatureSpec, config: SupConConfig, data: DataSpec) -> SupCon:
        refuse_one_class(data, "take simclr")
        return cls(features, config)

    def forward(self, online: list[Features], target: list[Features], batch: BatchInfo) -> Result:
        vectors = torch.cat([view.vector for view in online])
        classes = two_view_classes(len(online[0].vector), batch.labels, vectors.device)
        embeddings = F.normalize(widened(self.head(vectors)))
        cosines = embeddings @ embeddings.T
        first, second = embeddings.detach().chunk(2)
        metrics = {
            "accuracy": class_accuracy(cosines.detach(), classes),
            "embedding_std": embedding_std(first),
            "alignment": alignment(first, second),
        }
        return Result(supervised_nt_xent(cosines, classes, self.config.temperature), metrics)

    def projection_head(self) -> MLP:
        return self.head


METHOD = Method(
    "supcon",
    SupCon,
    SupConConfig,
    paper="Khosla et al. 2020, arXiv 2004.11362",
    summary="Contrast between classes: SimCLR with labels.",
)
