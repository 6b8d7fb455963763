"""CLIP: contrastive language-image pretraining (Radford et al. 2021, arXiv 2103.00020).

Each image must find its caption among all captions of the batch, and each caption its image, by cosine times a learned
scale. Images and captions have an encoder each, and a linear map from its vector into a common space.
"""

from __future__ import annotations

import functools
import math
import operator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from curl_rl.encoders import Features, FeatureSpec
from curl_rl.encoders.heads import MLP
from curl_rl.losses import alignment, contrastive_accuracy, embedding_std, symmetric_info_nce, unit_rows
from curl_rl.objectives.base import BatchInfo, DataSpec, Need, Objective, Result, ViewSpec
from curl_rl.objectives.method import Method
from curl_rl.ranges import at_least, check_ranges, positive


@dataclass(frozen=True)
class CLIPConfig:
    """Embeddings, scale and duplicates of CLIP."""

    dim: Annotated[int, at_least(1)] = 128
    """Size of the common space; 512 to 1,024 in the paper (tables 19 and 20)."""
    temperature: Annotated[float, positive] = 0.07
    """Temperature at the start: the reciprocal of the learned scale."""
    largest_scale: Annotated[float, at_least(1)] = 100.0
    """Largest scale of the cosines; the paper found it necessary against instability (section 2.5)."""
    duplicates: Literal["shared", "negative"] = "shared"
    """Samples of a batch with the same picture or the same caption. shared: each is the other's positive as well, with
    an even share of the target. negative: they repel each other as others do, as in the paper."""

    def __post_init__(self) -> None:
        check_ranges(self, "objectives.clip")
        if self.temperature < 1 / self.largest_scale:
            raise ValueError(
                f"objectives.clip.temperature must be at least 1 / largest_scale, {1 / self.largest_scale:g}, got "
                f"{self.temperature:g}"
            )


class CLIP(Objective):
    """Contrast between images and their captions.

    ``image_head`` and ``text_head`` map the encoders' vectors into the common space, whose vectors are compared by
    cosine. ``logit_scale`` is the logarithm of the scale, and is put back to its largest value after each step.

    Raises:
        ValueError: in ``forward``, the batch has 1 sample.
    """

    online_views = (ViewSpec(0), ViewSpec(0, modality="text"))
    needs = frozenset[Need]({"text"})
    projected = frozenset({"logit_scale"})

    def __init__(self, features: FeatureSpec, text: FeatureSpec, config: CLIPConfig = CLIPConfig()) -> None:
        super().__init__()
        self.config = config
        self.image_head = _projection(features.dim, config.dim)
        self.text_head = _projection(text.dim, config.dim)
        self.logit_scale = nn.Parameter(torch.tensor(-math.log(config.temperature)))

    @classmethod
    def build(cls, features: FeatureSpec, config: CLIPConfig, data: DataSpec) -> CLIP:
        if data.text is None:
            raise ValueError(
                "objectives.clip needs an encoder of texts beside that of images, got none: scripts/pretrain_text.py "
                "trains both, and data=DataSpec(text=...) gives the sizes of its features"
            )
        return cls(features, data.text, config)

    def forward(self, online: list[Features], target: list[Features], batch: BatchInfo) -> Result:
        image = unit_rows(self.image_head(online[0].vector))
        text = unit_rows(self.text_head(online[1].vector))
        logits = self.logit_scale.exp() * image @ text.T
        same = _same(batch.contents if self.config.duplicates == "shared" else None, logits)
        metrics = {
            "accuracy": _accuracy(logits, same),
            "text_accuracy": _accuracy(logits.T, same),
            "logit_scale": self.logit_scale.detach().exp(),
            "embedding_std": embedding_std(image.detach(), unit=True),
            "text_embedding_std": embedding_std(text.detach(), unit=True),
            "alignment": alignment(image.detach(), text.detach(), unit=True),
        }
        return Result(symmetric_info_nce(logits, same), metrics)

    @torch.no_grad()
    def after_step(self, carry: Any, momentum: Tensor) -> None:
        self.logit_scale.clamp_(max=math.log(self.config.largest_scale))

    def projection_head(self) -> MLP:
        return self.image_head

    def text_projection_head(self) -> MLP:
        return self.text_head


def _projection(inputs: int, dim: int) -> MLP:
    """A linear map without bias; its weights start as in the released code, normal with variance 1 / inputs."""
    head = MLP([inputs, dim], batch_norm=False, last="linear")
    for weight in head.parameters():
        nn.init.normal_(weight, std=inputs**-0.5)
    return head


def _same(contents: Tensor | None, logits: Tensor) -> Tensor | None:
    """``(B, B)`` booleans: samples that have a part in common, themselves included; None if nothing is known."""
    if contents is None:
        return None
    if len(logits) < 2:
        raise ValueError(f"negatives from the batch need at least 2 samples in a batch (batch_size), got {len(logits)}")
    return functools.reduce(operator.or_, (part[:, None] == part for part in contents.unbind(1)))


def _accuracy(logits: Tensor, same: Tensor | None) -> Tensor:
    """Share of the rows whose largest entry is one of their own; without ``same``, that on the diagonal."""
    if same is None:
        return contrastive_accuracy(logits.detach())
    return same.gather(1, logits.detach().max(1, keepdim=True).indices).float().mean()


METHOD = Method(
    "clip",
    CLIP,
    CLIPConfig,
    paper="Radford et al. 2021, arXiv 2103.00020",
    summary="Images and their captions find each other, in a common space.",
    instead="simclr (scripts/pretrain_text.py --method clip trains on images with captions)",
)
