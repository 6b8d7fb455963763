"""Instance discrimination: each image is its own class (Wu et al. 2018, arXiv 1805.01978).

A bank holds one embedding per image. A view of an image must be recognized by the image's own row among the rows of all
other images: a softmax over the bank without class weights, or its estimate by noise contrast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from curl_rl.encoders import Features, FeatureSpec
from curl_rl.encoders.heads import MLP
from curl_rl.losses import alignment, embedding_std, pair_accuracy
from curl_rl.losses.half_precision import widened
from curl_rl.objectives.bank_contrast import move_normalizer, recognition_loss, scores_against_bank
from curl_rl.objectives.banks import Table
from curl_rl.objectives.base import BatchInfo, DataSpec, Objective, Result, ViewSpec
from curl_rl.objectives.method import Method
from curl_rl.ranges import at_least, check_ranges, positive, within


@dataclass(frozen=True)
class InstDiscConfig:
    """Loss, bank and head of instance discrimination. The defaults are the released code's for ImageNet."""

    loss: Literal["softmax", "nce"] = "softmax"
    """softmax: over the bank (equation 2). nce: noise-contrastive estimation, the paper's approximation of it for many
    images (equations 4 to 7)."""
    temperature: Annotated[float, positive] = 0.07
    """Temperature of the similarities."""
    negatives: Annotated[int, at_least(1)] = 65536
    """Largest number of rows of the bank that each step compares with. If there are more images, the steps take
    successive parts of the bank in turn. The paper's nce draws 4096."""
    bank_momentum: Annotated[float, within("[0, 1]")] = 0.5
    """Weight of an image's old embedding when its row of the bank moves to the new one."""
    proximal: Annotated[float, at_least(0)] = 0.0
    """Weight of the squared distance between an image's embedding and its row (equation 9), which damps large
    changes. The paper's is 30; the released code has none."""
    dim: Annotated[int, at_least(1)] = 128
    """Size of the embeddings."""

    def __post_init__(self) -> None:
        check_ranges(self, "objectives.instdisc")


class InstDisc(Objective):
    """Recognition of each image by its row in a bank of all images.

    The bank holds no made-up embeddings. A pass over all images before the first epoch fills it; where there is no such
    pass, each image's first step does. Until then the image is no negative, and its own embedding, without gradient,
    stands in for its row.

    Args:
        features: sizes of the encoder's features.
        config: settings.
        count: number of images.
    """

    online_views = (ViewSpec(0),)
    needs = frozenset({"indices"})
    batch_dependent = False

    steps: Tensor
    """Number of steps taken, a scalar integer."""
    log_normalizer: Tensor | None
    """For ``nce``: the logarithm of Z/N, a moving average of exp(similarity / temperature) over the bank; a scalar."""

    def __init__(self, features: FeatureSpec, config: InstDiscConfig = InstDiscConfig(), *, count: int) -> None:
        super().__init__()
        self.config = config
        self.head = MLP([features.dim, config.dim], batch_norm=False, last="affine")
        self.bank = Table(count, config.dim)
        self.compared = min(config.negatives, count)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("log_normalizer", torch.zeros(()) if config.loss == "nce" else None)

    @classmethod
    def build(cls, features: FeatureSpec, config: InstDiscConfig, data: DataSpec) -> InstDisc:
        return cls(features, config, count=data.images_for("instdisc"))

    def forward(self, online: list[Features], target: list[Features], batch: BatchInfo) -> Result:
        c, indices = self.config, batch.indices
        assert indices is not None
        embeddings = self._embed(online[0].vector)
        scores, own = scores_against_bank(
            self.bank, embeddings, embeddings.detach(), indices, self.compared, self.steps
        )
        loss, newest = recognition_loss(scores, c.temperature, self.steps, self.log_normalizer)
        if c.proximal:
            loss = loss + c.proximal * (embeddings - own).square().sum(1).mean()
        metrics = {
            "accuracy": pair_accuracy(scores),
            "embedding_std": embedding_std(embeddings.detach()),
            "alignment": alignment(embeddings.detach(), own),
        }
        return Result(loss, metrics, (indices, embeddings.detach(), newest))

    def projection_head(self) -> MLP:
        return self.head

    def _embed(self, vectors: Tensor) -> Tensor:
        return F.normalize(widened(self.head(vectors)))

    @torch.no_grad()
    def after_step(self, carry: Any, momentum: Tensor) -> None:
        indices, embeddings, newest = carry
        self.bank.update(indices, embeddings, self.config.bank_momentum)
        if self.log_normalizer is not None:
            move_normalizer(self.log_normalizer, newest, self.steps)
        self.steps += 1

    def wants_all(self, epoch: int) -> Literal["online", "target"] | None:
        return "online" if epoch == 0 else None

    def remember(self, features: Features, batch: BatchInfo) -> None:
        assert batch.indices is not None
        self.bank.update(batch.indices, self._embed(features.vector), momentum=0)


METHOD = Method(
    "instdisc",
    InstDisc,
    InstDiscConfig,
    paper="Wu et al. 2018, arXiv 1805.01978",
    summary="Recognition of each image by its row in a bank of all images.",
    instead="moco",
)
