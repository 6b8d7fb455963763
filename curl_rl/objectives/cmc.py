"""Contrastive multiview coding of an image's lightness and its color (Tian et al. 2019, arXiv 1906.05849).

The two views of an image are channels, not augmentations: the lightness must be recognized by its color among those of
all other images, and the color by its lightness. Two networks that share nothing see one each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
class CMCConfig:
    """Loss, banks and heads of contrastive multiview coding. The defaults are the paper's for ImageNet."""

    loss: Literal["softmax", "nce"] = "softmax"
    """softmax: over the bank (equation 3). nce: noise-contrastive estimation, the released code's approximation of it
    for many images."""
    temperature: Annotated[float, positive] = 0.07
    """Temperature of the similarities."""
    negatives: Annotated[int, at_least(1)] = 16384
    """Largest number of rows of a bank that each step compares with. If there are more images, the steps take
    successive parts of the bank in turn."""
    bank_momentum: Annotated[float, within("[0, 1]")] = 0.5
    """Weight of an image's old embedding when its row of a bank moves to the new one."""
    dim: Annotated[int, at_least(1)] = 128
    """Size of the embeddings."""

    def __post_init__(self) -> None:
        check_ranges(self, "objectives.cmc")


class CMC(Objective):
    """Recognition of each image's lightness by its color in a bank of all images, and the reverse.

    The banks hold no made-up embeddings. A pass over all images before the first epoch fills them; where there is no
    such pass, each image's first step does. Until then the image is no negative, and the other stream's embedding of
    the same step, without gradient, stands in for its row.

    Args:
        features: sizes of the features of an encoder of two streams.
        config: settings.
        count: number of images.

    Raises:
        ValueError: the encoder does not have two streams.
    """

    online_views = (ViewSpec(0),)
    streams = 2
    needs = frozenset({"indices"})
    batch_dependent = False

    steps: Tensor
    """Number of steps taken, a scalar integer."""
    log_normalizers: Tensor | None
    """For ``nce``: ``(2,)``, the logarithm of Z/N (``losses.nce``) for the bank of each stream."""

    def __init__(self, features: FeatureSpec, config: CMCConfig = CMCConfig(), *, count: int) -> None:
        super().__init__()
        if features.streams != self.streams:
            raise ValueError(
                f"objectives.cmc needs an encoder of two streams, got {features.streams}: set encoder.split lab"
            )
        self.config = config
        sizes = [features.dim // 2, config.dim]
        self.heads = nn.ModuleList(MLP(sizes, batch_norm=False, last="affine") for _ in range(2))
        self.banks = nn.ModuleList(Table(count, config.dim) for _ in range(2))
        self.compared = min(config.negatives, count)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("log_normalizers", torch.zeros(2) if config.loss == "nce" else None)

    @classmethod
    def build(cls, features: FeatureSpec, config: CMCConfig, data: DataSpec) -> CMC:
        return cls(features, config, count=data.images_for("cmc"))

    def forward(self, online: list[Features], target: list[Features], batch: BatchInfo) -> Result:
        indices = batch.indices
        assert indices is not None
        embeddings = self._embed(online[0].vector)
        losses, accuracies, newest = [], [], []
        for stream, bank in enumerate(self.banks):
            query, key = embeddings[1 - stream], embeddings[stream].detach()
            scores, _ = scores_against_bank(bank, query, key, indices, self.compared, self.steps)  # type: ignore[arg-type]
            normalizer = None if self.log_normalizers is None else self.log_normalizers[stream]
            loss, estimate = recognition_loss(scores, self.config.temperature, self.steps, normalizer)
            losses.append(loss)
            accuracies.append(pair_accuracy(scores))
            newest.append(estimate)
        lightness, color = (embedding.detach() for embedding in embeddings)
        metrics = {
            "accuracy": torch.stack(accuracies).mean(),
            "embedding_std": torch.stack([embedding_std(lightness), embedding_std(color)]).mean(),
            "alignment": alignment(lightness, color),
        }
        return Result(torch.stack(losses).sum(), metrics, (indices, (lightness, color), newest))  # equation 6

    def _embed(self, vectors: Tensor) -> list[Tensor]:
        """Unit embeddings of the lightness and of the color, ``(B, dim)`` each."""
        parts = zip(self.heads, vectors.chunk(2, 1), strict=True)
        return [F.normalize(widened(head(part))) for head, part in parts]

    @torch.no_grad()
    def after_step(self, carry: Any, momentum: Tensor) -> None:
        indices, embeddings, newest = carry
        self._update(indices, embeddings, self.config.bank_momentum)
        if self.log_normalizers is not None:
            move_normalizer(self.log_normalizers, torch.stack(newest), self.steps)
        self.steps += 1

    def wants_all(self, epoch: int) -> Literal["online", "target"] | None:
        return "online" if epoch == 0 else None

    def remember(self, features: Features, batch: BatchInfo) -> None:
        assert batch.indices is not None
        self._update(batch.indices, self._embed(features.vector), momentum=0)

    def _update(self, indices: Tensor, embeddings: Any, momentum: float) -> None:
        for bank, new in zip(self.banks, embeddings, strict=True):
            bank.update(indices, new, momentum)  # type: ignore[operator]


METHOD = Method(
    "cmc",
    CMC,
    CMCConfig,
    paper="Tian et al. 2019, arXiv 1906.05849",
    summary="Recognition of an image's lightness by its color, and the reverse, in banks of all images.",
    instead="moco",
)
