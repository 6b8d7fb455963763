"""CURL: Contrastive Unsupervised Representations for Reinforcement Learning (Laskin et al. 2020, arXiv 2004.04136).

From two independent crops of an observation, the encoder embeds the query and its slow copy the key. A bilinear form
scores every query against every key of the batch; the loss is the cross-entropy of classifying each query's own key
among all keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curl_rl.encoders import Features, FeatureSpec
from curl_rl.losses import bilinear_similarity, contrastive_accuracy, info_nce, softmax_confidence
from curl_rl.objectives.base import BatchInfo, Objective, Result, ViewSpec
from curl_rl.objectives.method import Method
from curl_rl.ranges import check_ranges

_MOMENTUM = 0.95  # 1 − the encoder's tau of the paper's Table 3


@dataclass(frozen=True)
class CurlConfig:
    """The contrastive head of CURL."""

    similarity_init: Literal["identity", "uniform"] = "identity"
    """Initial value of the bilinear W. identity: I/√D, so that the similarity of two layer-normalized embeddings starts
    as √D times their cosine. uniform: every entry drawn from [0, 1), as in the released code."""
    layer_norm: bool = False
    """Standardize each embedding over its features first. For encoders that do not end in a layer norm as CURL's does,
    such as a ResNet, whose nonnegative features would otherwise be similar in every pair."""

    def __post_init__(self) -> None:
        check_ranges(self, "objectives.curl")


class Curl(Objective):
    """Bilinear InfoNCE between a crop and the momentum encoding of another crop."""

    online_views = (ViewSpec(0),)
    target_views = (ViewSpec(1),)

    def __init__(self, features: FeatureSpec, config: CurlConfig = CurlConfig()) -> None:
        super().__init__()
        self._layer_norm = config.layer_norm
        if config.similarity_init == "identity":
            weight = torch.eye(features.dim) / features.dim**0.5
        else:
            weight = torch.rand(features.dim, features.dim)
        self.W = nn.Parameter(weight)

    def forward(self, online: list[Features], target: list[Features], batch: BatchInfo) -> Result:
        query, key = online[0].vector, target[0].vector.detach()
        if self._layer_norm:
            query, key = (F.layer_norm(vector, vector.shape[-1:]) for vector in (query, key))
        logits = bilinear_similarity(query, self.W, key)
        loss = info_nce(logits)
        scores = logits.detach()
        metrics = {
            "accuracy": contrastive_accuracy(scores),
            "confidence": softmax_confidence(scores),
            "logits_std": scores.std(1).mean(),
        }
        return Result(loss, metrics)

    def momentum(self, progress: Tensor) -> Tensor:
        return torch.full_like(progress, _MOMENTUM)


METHOD = Method(
    "curl",
    Curl,
    CurlConfig,
    paper="Laskin et al. 2020, arXiv 2004.04136",
    summary="Bilinear momentum contrast between two crops.",
)
