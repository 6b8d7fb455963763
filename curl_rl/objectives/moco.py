"""MoCo: momentum contrast (He et al. 2019, arXiv 1911.05722; v2, arXiv 2003.04297; v3, arXiv 2104.02057).

A query, one view through the encoder and a head, must find its key, another view through the slow copies of both. In v1
and v2 the negatives are the keys of past batches, kept in a queue; in v3 they are the other keys of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curl_rl.encoders import Features, FeatureSpec
from curl_rl.encoders.heads import MLP
from curl_rl.losses import (
    alignment,
    bank_scores,
    contrastive_accuracy,
    embedding_std,
    info_nce,
    nt_xent,
    pair_accuracy,
)
from curl_rl.objectives.banks import Ring
from curl_rl.objectives.base import BatchInfo, Objective, Result, ViewSpec
from curl_rl.objectives.method import Method
from curl_rl.objectives.momentum import cosine_momentum, momentum_buffers, move_towards
from curl_rl.ranges import at_least, check_ranges, positive, within


class _Published(NamedTuple):
    """Defaults of a version, from its paper or its released code for ResNets."""

    dim: int
    temperature: float
    momentum: float
    symmetric: bool


_PUBLISHED = {
    "v1": _Published(128, 0.07, 0.999, False),
    "v2": _Published(128, 0.2, 0.999, False),
    "v3": _Published(256, 1.0, 0.99, True),
}


@dataclass(frozen=True)
class MoCoConfig:
    """The version of MoCo, and deviations from the published settings."""

    version: Literal["v1", "v2", "v3"] = "v2"
    """v1: a linear head and a queue of negatives. v2: an MLP head and a queue. v3: MLPs with batch norm, a predictor on
    the query side, negatives from the batch and no queue."""
    dim: Annotated[int | None, at_least(1)] = None
    """Size of queries and keys. [default: 128; v3: 256]"""
    hidden: Annotated[int | None, at_least(1)] = None
    """Width of the hidden layers; v1 has none. [default: the features' own; v3: twice that, as the paper's 4096 is to
    ResNet-50's 2048]"""
    temperature: Annotated[float | None, positive] = None
    """Temperature of the similarities. [default: v1: 0.07; v2: 0.2; v3: 1.0, as in the released code for ResNets]"""
    queue: Annotated[int, at_least(1)] = 65536
    """Number of past keys that v1 and v2 keep as negatives, at least one batch of keys. The queue starts empty."""
    symmetric: bool | None = None
    """Use each view once as query and once as key, and add the two losses: twice the encoding. [default: v3 only]"""
    momentum: Annotated[float | None, within("[0, 1]")] = None
    """Momentum of the slow copies: constant in v1 and v2; in v3 the start of a cosine that ends at 1. (In reinforcement
    learning agent.encoder_tau is used instead.) [default: 0.999; v3: 0.99]"""

    def __post_init__(self) -> None:
        check_ranges(self, "objectives.moco")


class MoCo(Objective):
    """Contrast between a query and keys computed by slow copies of encoder and head.

    The queue holds no made-up keys: slots not yet filled are masked, so the first batch has no negatives and a loss of
    0. The keys of a step enter the queue in ``after_step``, when they are no longer positives.

    Raises:
        ValueError: in ``forward``, the queue is smaller than the keys of one batch; in v3, a batch of 1.
    """

    def __init__(self, features: FeatureSpec, config: MoCoConfig = MoCoConfig()) -> None:
        super().__init__()
        self.config = config
        published = _PUBLISHED[config.version]
        dim = config.dim if config.dim is not None else published.dim
        self.temperature = config.temperature if config.temperature is not None else published.temperature
        self.start_momentum = config.momentum if config.momentum is not None else published.momentum
        symmetric = config.symmetric if config.symmetric is not None else published.symmetric
        self.online_views = (ViewSpec(0), ViewSpec(1)) if symmetric else (ViewSpec(0),)
        self.target_views = (ViewSpec(0), ViewSpec(1)) if symmetric else (ViewSpec(1),)

        self.predictor: nn.Module = nn.Identity()
        self.queue: Ring | None = None
        if config.version == "v3":
            hidden = config.hidden if config.hidden is not None else 2 * features.dim
            self.head = MLP([features.dim, hidden, dim], batch_norm=True, last="standardized")
            # No final batch norm: the released code has it only for vision transformers.
            self.predictor = MLP([dim, hidden, dim], batch_norm=True, last="linear")
        else:
            hidden = config.hidden if config.hidden is not None else features.dim
            sizes = [features.dim, dim] if config.version == "v1" else [features.dim, hidden, dim]
            self.head = MLP(sizes, batch_norm=False, last="affine")
            self.queue = Ring(config.queue, dim)
        self.key_head = momentum_buffers(self.head)
        self.batch_dependent = self.queue is None
        # The released code for v3 moves the slow copies with a step's momentum before it computes the step's keys.
        # (With the constant momentum of v1 and v2 it makes no difference.)
        self.momentum_ahead = config.version == "v3"

    def forward(self, online: list[Features], target: list[Features], batch: BatchInfo) -> Result:
        queries = [F.normalize(self.predictor(self.head(view.vector))) for view in online]
        with torch.no_grad():
            keys = [F.normalize(self.key_head(view.vector)) for view in target]
        # Each query's key is computed from the other view.
        pairs = list(zip(queries, reversed(keys), strict=True))
        results = [self._contrast(query, key, len(pairs)) for query, key in pairs]
        losses, accuracies = zip(*results, strict=True)
        metrics = {
            "accuracy": torch.stack(accuracies).mean(),
            "embedding_std": embedding_std(queries[0].detach()),
            "alignment": alignment(queries[0].detach(), keys[-1]),
        }
        return Result(torch.stack(losses).sum(), metrics, torch.cat(keys))

    def projection_head(self) -> MLP:
        return self.head

    def _contrast(self, query: Tensor, key: Tensor, directions: int) -> tuple[Tensor, Tensor]:
        """Loss and accuracy of one direction."""
        if self.queue is None:
            similarity = query @ key.T
            # This factor of v3's algorithm 1 keeps the size of the gradient when the temperature changes.
            loss = 2 * self.temperature * info_nce(similarity / self.temperature)
            return loss, contrastive_accuracy(similarity.detach())
        keys = directions * len(key)
        if keys > self.config.queue:
            raise ValueError(
                f"objectives.moco.queue must be at least {keys}, the keys of one batch, got {self.config.queue}"
            )
        scores = bank_scores(query, key, self.queue.embeddings, self.queue.valid)
        return nt_xent(scores, self.temperature), pair_accuracy(scores)

    def after_step(self, carry: Tensor, momentum: Tensor) -> None:
        move_towards(self.key_head.buffers(), self.head.parameters(), 1 - momentum)
        if self.queue is not None:
            self.queue.push(carry)

    def momentum(self, progress: Tensor) -> Tensor:
        if self.config.version == "v3":
            return cosine_momentum(self.start_momentum, progress)
        return torch.full_like(progress, self.start_momentum)


METHOD = Method(
    "moco",
    MoCo,
    MoCoConfig,
    paper="He et al. 2019, arXiv 1911.05722",
    summary="Contrast with the keys of a slow copy, negatives from a queue.",
)
