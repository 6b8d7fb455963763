"""The interface of a self-supervised objective: the views it needs and the loss it computes from their features.

An objective sees features, never images: it names the views and who encodes each, and its user (the agent, a
pretraining run, somebody else's training loop) crops and encodes them. ``forward`` is pure; state changes in
``after_step``, and for methods that look at all images at once, in ``remember`` and ``between_epochs``.

All state is kept in buffers, slow copies of heads included (``momentum.momentum_buffers``), so that ``parameters()`` is
what learns and ``state_dict()`` is all there is to save.

With several processes, each calls ``forward`` with the features of the whole batch: a method knows of no process but
its own, and batch norm in its heads sees every sample.

Metrics have the same names in all methods that report them:

- ``accuracy``: share of queries that prefer their positive to every negative.
- ``embedding_std``: 1 for embeddings spread over all directions, 0 for collapse (``losses.embedding_std``).
- ``alignment``: mean squared distance of the two views' embeddings, 0 to 4 (``losses.alignment``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from curl_rl.encoders import Features, FeatureSpec
from curl_rl.encoders.heads import MLP

Need = Literal["labels", "indices", "actions", "epochs"]
"""What a method may depend on besides features. ``labels``: a class for each sample. ``indices``: each sample's place
in a fixed set of samples. ``actions``: those taken between the observation and its futures. ``epochs``: that
:meth:`Objective.between_epochs` is called."""


@dataclass(frozen=True)
class ViewSpec:
    """One augmented copy of the input that an objective needs encoded."""

    index: int
    """Views with the same index are the same augmentation of the same input. View 0 is the one that the user of the
    objective has anyway: in reinforcement learning the crop that the critic saw."""
    future: int = 0
    """Agent steps from the observation to the one that the view is made of; 0: the observation itself. Replays and
    recorded frames have futures; single images have only 0."""
    modality: Literal["image", "text"] = "image"
    """The kind of input, and so which encoder it is for."""


class BatchInfo(NamedTuple):
    """The rest of a batch, apart from its features; None where the data have no such thing."""

    indices: Tensor | None = None
    """``(B,)``, each sample's place in the set of samples."""
    labels: Tensor | None = None
    """``(B,)`` classes."""
    actions: Tensor | None = None
    """``(B, K, A)``: the actions taken from the observation on, K of them, where K is the largest ``ViewSpec.future``;
    zeros after the end of the episode."""


@dataclass(frozen=True)
class DataSpec:
    """Sizes of the data that a method may have to know when it is built; None where they are not known."""

    count: int | None = None
    """Samples in the set: the rows of a bank with a place for each."""
    classes: int | None = None
    """Classes of the labels."""
    action_dim: int | None = None
    """Size of an action."""
    text: FeatureSpec | None = None
    """Sizes of the text encoder's features."""


@dataclass(frozen=True)
class Result:
    """Result of ``forward``: the loss, detached metrics by name, and whatever ``after_step`` will need."""

    loss: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)
    carry: Any = None


class Objective(nn.Module):
    """One self-supervised method: the heads it adds, the memory it keeps, the loss it computes.

    A new method subclasses it in a file of its own, which ends in a :class:`~curl_rl.objectives.registry.Method`.
    """

    online_views: tuple[ViewSpec, ...]
    """Views that the trained encoder encodes, with gradient."""
    target_views: tuple[ViewSpec, ...] = ()
    """Views that its slow copy encodes, without gradient."""
    views_together: bool = False
    """Whether consecutive online views of one shape pass the encoder as one batch, which matters to batch norm: its
    statistics are then over all of them, else over each view by itself. Each method follows its released code."""
    reads_maps: bool = False
    """Whether the loss compares places, by ``Features.map`` or ``Features.middle``. Where it does not, the processes of
    a pretraining run do not exchange these large maps, and the loss gets empty ones."""
    batch_dependent: bool = True
    """Whether a sample's part in the loss depends on the rest of the batch: in-batch negatives, batch norm. If so,
    the gradients of small batches do not add up to that of one large batch."""
    needs: frozenset[Need] = frozenset()
    """What the method cannot do without. A user that lacks it refuses the method before anything starts."""
    projected: frozenset[str] = frozenset()
    """Names of the parameters that ``after_step`` itself puts back into their set: prototypes of unit length, say."""

    @classmethod
    def build(cls, features: FeatureSpec, config: Any, data: DataSpec) -> Objective:
        """The method for an encoder with these features. Methods that depend on the data's sizes override it.

        Raises:
            ValueError: a size is missing, or does not suit the settings.
        """
        return cls(features, config)

    def forward(self, online: list[Features], target: list[Features], batch: BatchInfo) -> Result:
        """The loss of one batch, from the features of ``online_views`` and ``target_views`` in that order. Pure."""
        raise NotImplementedError

    def try_out(self, features: FeatureSpec, batch_size: int, data: DataSpec = DataSpec()) -> None:
        """Computes one loss on empty features, so that whatever the first step would refuse is refused at the start.

        The module must be on the meta device.

        Raises:
            ValueError: the batch does not suit the method or its settings.
        """
        if self.batch_dependent and batch_size < 2:
            raise ValueError(f"batch_size must be at least 2 for this objective, got {batch_size}")

        def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.empty(batch_size, *shape, dtype=dtype, device="meta")

        view = Features(empty(features.dim), empty(*features.map_shape))
        if features.middle_shape is not None:
            view = view._replace(middle=empty(*features.middle_shape))
        ahead = max(spec.future for spec in (*self.online_views, *self.target_views))
        batch = BatchInfo(
            indices=empty(dtype=torch.int64) if "indices" in self.needs else None,
            labels=empty(dtype=torch.int64) if "labels" in self.needs else None,
            actions=empty(ahead, data.action_dim or 1) if "actions" in self.needs else None,
        )
        online, target = ([view for _ in some] for some in (self.online_views, self.target_views))
        self(online, target, batch)

    def after_step(self, carry: Any, momentum: Tensor) -> None:
        """Called after the optimizer's step: moves the method's own slow heads, enqueues keys, renormalizes.

        ``momentum`` is what the encoder's slow copy was moved with (1 where it did not move), a scalar.
        """

    def wants_all(self, epoch: int) -> Literal["online", "target"] | None:
        """Whether every sample is to be encoded before this epoch, by whom, for :meth:`remember`; None: not at all.

        The pass is as in evaluation: center views, evaluation mode, no gradient.
        """
        return None

    def remember(self, features: Features, batch: BatchInfo) -> None:
        """Takes the features of some of the samples, those of ``batch.indices``, into the method's bank."""

    def between_epochs(self, epoch: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Called before every epoch, after :meth:`remember` where that was wanted: clusters the bank, say.

        Several processes call it alike. ``generator``, on the CPU, depends on the run's seed and the epoch alone.
        Returns metrics, detached scalars by name.
        """
        return {}

    def momentum(self, progress: Tensor) -> Tensor:
        """The momentum that the method asks of the encoder's slow copy at ``progress`` in [0, 1], a scalar.

        In reinforcement learning SAC's ``encoder_tau`` takes its place.
        """
        return torch.ones_like(progress)

    def projection_head(self) -> MLP | None:
        """The head that embeds the encoder's vector, if it has one, for training that goes on from its middle."""
        return None

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Its parameters as optimizer groups; a group may name its own learning rate or weight decay.

        ``"fixed_lr": True`` in a group asks schedules to leave its learning rate where it starts.
        """
        return [{"params": list(self.parameters())}]
