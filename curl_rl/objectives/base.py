"""What a self-supervised method is to those who use it: the views it asks for and the loss it takes of their features.

An objective sees features, never images: it says which views it wants encoded by whom, and its user (the agent, a
vision trainer, a foreign training loop) crops and encodes them. ``forward`` is pure; state changes in ``after_step``.

All state is kept in buffers, slow copies of heads included (``memory.momentum_buffers``), so that ``parameters()`` is
what learns and ``state_dict()`` is all there is to save.

With many processes, each calls ``forward`` with the features of the whole batch: a method knows of no process but its
own, and batch norm in its heads sees every sample.

Metrics have the same names in all methods that report them:

- ``accuracy``: share of queries that prefer their positive to every negative.
- ``embedding_std``: 1 for embeddings spread over all directions, 0 for collapse (``losses.embedding_std``).
- ``alignment``: mean squared distance of the two views' embeddings, 0 to 4 (``losses.alignment``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from curl_rl.encoders import Features, FeatureSpec
from curl_rl.encoders.heads import MLP


@dataclass(frozen=True)
class ViewSpec:
    """One augmented copy of the input that an objective wants encoded."""

    index: int
    """Views with the same index are the same augmentation of the same input. View 0 is the one that the user of the
    objective has anyway: in reinforcement learning the crop that the critic saw."""
    future: int = 0
    """Of which moment: this many agent steps after the observation; 0, the observation itself. Images have only 0."""


class BatchInfo(NamedTuple):
    """What is known of the batch beside its features: ``(B,)`` indices and labels where the data have them."""

    indices: Tensor | None = None
    labels: Tensor | None = None


@dataclass(frozen=True)
class Result:
    """What ``forward`` gives: the loss, detached metrics by name, and what ``after_step`` will need."""

    loss: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)
    carry: Any = None


class Objective(nn.Module):
    """One self-supervised method: the heads it adds, the memory it keeps, the loss it takes."""

    online_views: tuple[ViewSpec, ...]
    """Views that the trained encoder encodes, with gradient."""
    target_views: tuple[ViewSpec, ...] = ()
    """Views that its slow copy encodes, without gradient."""
    views_together: bool = False
    """Whether the online views pass the encoder as one batch, which matters to batch norm: its statistics are then over
    all of them, else over each view for itself. Methods differ, and are taken as their released code has them."""
    reads_maps: bool = False
    """Whether the loss compares places, by ``Features.map``. Where it does not, the processes of a pretraining do not
    send each other these large maps, and the loss is given empty ones."""
    batch_dependent: bool = True
    """Whether a sample's part in the loss depends on who else is in the batch: in-batch negatives, batch norm. If so,
    the gradients of small batches do not add up to that of one large batch."""

    def forward(self, online: list[Features], target: list[Features], batch: BatchInfo) -> Result:
        """The loss of one batch, from the features of ``online_views`` and ``target_views`` in that order. Pure."""
        raise NotImplementedError

    def try_out(self, features: FeatureSpec, batch_size: int) -> None:
        """One loss on features without contents, so that what the first step would refuse is refused at the door.

        The module must be on the meta device.

        Raises:
            ValueError: the batch does not suit the method or its settings.
        """
        if self.batch_dependent and batch_size < 2:
            raise ValueError(f"batch_size must be at least 2 for this objective, got {batch_size}")
        empty = torch.empty(batch_size, features.dim, device="meta")
        view = Features(empty, torch.empty(batch_size, *features.map_shape, device="meta"))
        online, target = ([view for _ in specs] for specs in (self.online_views, self.target_views))
        self(online, target, BatchInfo())

    def after_step(self, carry: Any, momentum: Tensor) -> None:
        """After the optimizer's step: move the method's own slow heads, enqueue keys, renormalise.

        ``momentum`` is what the encoder's slow copy was moved with (1 where it stood still), a scalar.
        """

    def momentum(self, progress: Tensor) -> Tensor:
        """The momentum that the method asks of the encoder's slow copy at ``progress`` in [0, 1], a scalar.

        In reinforcement learning SAC's ``encoder_tau`` rules instead.
        """
        return torch.ones_like(progress)

    def projection_head(self) -> MLP | None:
        """The head that embeds the encoder's vector, if it has one, for whoever trains on from its middle."""
        return None

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Its parameters as optimizer groups; a group may name its own learning rate or weight decay.

        ``"fixed_lr": True`` in a group asks schedules to leave its learning rate where it starts.
        """
        return [{"params": list(self.parameters())}]
