"""SwAV: swapping assignments between views (Caron et al. 2020, arXiv 2006.09882), and Proto-RL's form of it.

Each view predicts the code of another view of the same input: its soft assignment to learned prototypes, which use all
prototypes about equally over the batch. Proto-RL (Yarats et al. 2021, arXiv 2102.11271) predicts, from an observation,
the code that the slow copies of encoder and head give to the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curl_rl.encoders import Features, FeatureSpec
from curl_rl.encoders.heads import MLP
from curl_rl.losses import alignment, embedding_std, sinkhorn, swapped_accuracy, swapped_prediction, used_share
from curl_rl.losses.half_precision import widened
from curl_rl.objectives.banks import Ring
from curl_rl.objectives.base import BatchInfo, Objective, Result, ViewSpec
from curl_rl.objectives.method import Method
from curl_rl.objectives.momentum import momentum_buffers, move_towards
from curl_rl.ranges import at_least, check_ranges, positive, within, zero_or_more


@dataclass(frozen=True)
class SwAVConfig:
    """Prototypes, codes and heads of SwAV. The defaults are the paper's and its released code's for ImageNet."""

    prototypes: Annotated[int, at_least(1)] = 3000
    """Number of prototypes. With a queue, at most about the size of batch and queue together; without, of a batch."""
    temperature: Annotated[float, positive] = 0.1
    """Temperature of the predictions."""
    epsilon: Annotated[float, positive] = 0.05
    """Weight of the codes' entropy: near 0, each view is assigned to a single prototype. Proto-RL: 0.1."""
    sinkhorn_iterations: Annotated[int, at_least(1)] = 3
    """Number of times that the codes are scaled to use all prototypes equally."""
    frozen_steps: Annotated[int, at_least(0)] = 313
    """Steps at the start in which the prototypes do not learn: one epoch in the paper."""
    queue: Annotated[int, zero_or_more("none")] = 0
    """Number of past embeddings of each view that are balanced along with the batch, for batches smaller than the
    number of prototypes: at least one batch. It is not used before it is full."""
    queue_after: Annotated[int, at_least(0)] = 0
    """Steps before the queue is used: 15 epochs in the released code for batches of 256."""
    head_layers: Annotated[int, at_least(1)] = 2
    """Layers of the head; all but the last have batch norm and ReLU."""
    hidden: Annotated[int | None, at_least(1)] = None
    """Width of the hidden layers of head and predictor. [default: the features' own, as the paper's 2048]"""
    dim: Annotated[int, at_least(1)] = 128
    """Size of the embeddings and the prototypes."""
    local_views: Annotated[int, at_least(0)] = 0
    """Number of additional views that predict codes but have none of their own, usually smaller crops (multi-crop,
    section 3.2). For images it must equal augment.local_views."""
    target: Literal["online", "slow"] = "online"
    """What computes the codes. online: the networks in training. slow: their slow copies, as in Proto-RL."""
    future: Annotated[int, zero_or_more("the same observation")] = 0
    """Agent steps from the first view's observation to the second's. With the target slow, the earlier then predicts
    the later and not the reverse, as in Proto-RL with 1."""
    predictor: bool = False
    """Predict with an additional network of two layers after the head, as in Proto-RL."""
    momentum: Annotated[float, within("[0, 1]")] = 0.95
    """Momentum of the slow copies. (In reinforcement learning agent.encoder_tau is used instead.)"""

    def __post_init__(self) -> None:
        check_ranges(self, "objectives.swav")


class SwAV(Objective):
    """Prediction of one view's balanced assignment to prototypes from the other views.

    The queue holds no made-up embeddings: until it is full, codes are balanced over the batch alone.

    Raises:
        ValueError: in ``forward``, the batch has 1 sample, or more than the queue holds.
    """

    views_together = True
    projected = frozenset({"prototypes"})

    prototypes: nn.Parameter
    """``(K, D)``, each of length 1."""
    steps: Tensor
    """Number of steps taken, a scalar integer."""

    def __init__(self, features: FeatureSpec, config: SwAVConfig = SwAVConfig()) -> None:
        super().__init__()
        self.config = config
        slow, pair = config.target == "slow", (ViewSpec(0), ViewSpec(1, config.future))
        forward_only = slow and config.future > 0
        self._coded = pair[1:] if forward_only else pair
        self.target_views = self._coded if slow else ()
        local_views = (ViewSpec(2 + index) for index in range(config.local_views))
        self.online_views = (*(pair[:1] if forward_only else pair), *local_views)

        hidden = config.hidden if config.hidden is not None else features.dim
        self.head = MLP(
            [features.dim, *[hidden] * (config.head_layers - 1), config.dim], batch_norm=True, last="affine"
        )
        self.slow_head = momentum_buffers(self.head) if slow else None
        # Without batch norm, as in Proto-RL.
        sizes = [config.dim, hidden, config.dim]
        self.predictor = MLP(sizes, batch_norm=False, last="affine") if config.predictor else None
        self.prototypes = nn.Parameter(F.normalize(torch.randn(config.prototypes, config.dim)))
        # A row holds the embeddings of all views that have codes, side by side.
        self.queue = Ring(config.queue, len(self._coded) * config.dim) if config.queue else None
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, online: list[Features], target: list[Features], batch: BatchInfo) -> Result:
        size = len(online[0].vector)
        if size < 2:
            raise ValueError(f"balanced codes need at least 2 samples in a batch (batch_size), got {size}")
        if self.queue is not None and size > self.config.queue:
            raise ValueError(
                f"objectives.swav.queue must be at least {size}, the samples of one batch, got {self.config.queue}"
            )
        # All views together: batch norm in the head takes its statistics over all crops, as in the released code.
        projections = self.head(torch.cat([view.vector for view in online]))
        embeddings = _unit(projections.detach()).split(size)
        coded = embeddings[: len(self._coded)] if self.slow_head is None else self._slow_embeddings(target)
        codes = dict(zip(self._coded, self._codes(coded), strict=True))
        predictions = projections if self.predictor is None else self.predictor(projections)
        cosines = _unit(predictions) @ self._prototypes().T
        scores = dict(zip(self.online_views, cosines.split(size), strict=True))
        metrics = {
            "accuracy": swapped_accuracy(scores, codes),
            "prototypes_used": used_share(cosines.detach(), self.config.temperature),
            "embedding_std": embedding_std(embeddings[0]),
            "alignment": alignment(embeddings[0], coded[-1]),
        }
        return Result(swapped_prediction(scores, codes, self.config.temperature), metrics, coded)

    def projection_head(self) -> MLP:
        return self.head

    def _prototypes(self) -> Tensor:
        """The prototypes, with gradient once they are no longer frozen."""
        frozen = (self.steps < self.config.frozen_steps).to(self.prototypes.dtype)
        return widened(frozen * self.prototypes.detach() + (1 - frozen) * self.prototypes)

    @torch.no_grad()
    def _slow_embeddings(self, target: list[Features]) -> Sequence[Tensor]:
        assert self.slow_head is not None
        return _unit(self.slow_head(torch.cat([view.vector for view in target]))).split(len(target[0].vector))

    @torch.no_grad()
    def _codes(self, coded: Sequence[Tensor]) -> list[Tensor]:
        """The codes of each view, balanced over the batch and, once it is in use, the view's queue."""
        c, prototypes = self.config, widened(self.prototypes)

        def balanced(embeddings: Tensor) -> Tensor:
            return sinkhorn(embeddings @ prototypes.T, c.epsilon, c.sinkhorn_iterations)

        alone = [balanced(embeddings) for embeddings in coded]
        if self.queue is None:
            return alone
        past = widened(self.queue.embeddings).split(c.dim, 1)
        together = [balanced(torch.cat([now, old]))[: len(now)] for now, old in zip(coded, past, strict=True)]
        in_use = self.queue.valid.all() & (self.steps >= c.queue_after)
        return [torch.where(in_use, code, other) for code, other in zip(together, alone, strict=True)]

    @torch.no_grad()
    def after_step(self, carry: Sequence[Tensor], momentum: Tensor) -> None:
        self.prototypes.copy_(F.normalize(self.prototypes))
        if self.slow_head is not None:
            move_towards(self.slow_head.buffers(), self.head.parameters(), 1 - momentum)
        if self.queue is not None:
            self.queue.push(torch.cat(list(carry), 1))
        self.steps += 1

    def momentum(self, progress: Tensor) -> Tensor:
        return torch.full_like(progress, self.config.momentum)


def _unit(embeddings: Tensor) -> Tensor:
    return F.normalize(widened(embeddings))


METHOD = Method(
    "swav",
    SwAV,
    SwAVConfig,
    paper="Caron et al. 2020, arXiv 2006.09882",
    summary="Prediction of another view's balanced assignment to learned prototypes.",
)
