"""The interface of a self-supervised objective: the views it needs and the loss it computes from their features.

An objective sees features, never images: it declares the views and which encoder encodes each, and its user (the agent,
a pretraining run, a custom training loop) crops and encodes them. ``forward`` is pure; state changes in ``after_step``,
and, for methods that look at all images at once, in ``remember`` and ``between_epochs``.

All state is in buffers, including slow copies of heads (``momentum.momentum_buffers``), so that ``parameters()`` holds
exactly what learns and ``state_dict()`` everything to save.

With several processes, each calls ``forward`` with the features of the whole batch: a method does not deal with other
processes, and batch norm in its heads sees every sample.

Metrics have the same names in all methods that report them:

- ``accuracy``: fraction of queries that prefer their positive to every negative.
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

Modality = Literal["image", "text"]
"""Kind of an input: images, or observations made of them, as pixels; texts as tokens."""

Need = Literal["labels", "indices", "actions", "epochs", "text", "hidden"]
"""What a method may require besides features of images. ``labels``: a class for each sample. ``indices``: each sample's
index in a fixed set of samples. ``actions``: those taken between the observation and its futures. ``epochs``: calls of
:meth:`Objective.between_epochs`. ``text``: texts, for all of its views or some. ``hidden``: masked views of texts, and
the tokens hidden in them."""


@dataclass(frozen=True)
class ViewSpec:
    """One augmented copy of the input that an objective needs encoded."""

    index: int
    """Views with the same index are the same augmentation of the same input. View 0 is the one that the user of the
    objective has anyway: in reinforcement learning the crop that the critic saw."""
    future: int = 0
    """Agent steps from the observation to the one that the view is made from; 0: the observation itself. Replays and
    recorded frames have futures; single images have only 0."""
    modality: Modality = "image"
    """Kind of the input, which decides the encoder."""
    masked: bool = False
    """A text some of whose tokens are hidden: those in ``BatchInfo.hidden``."""


class BatchInfo(NamedTuple):
    """The contents of a batch besides features; each is None if the data do not have it."""

    indices: Tensor | None = None
    """``(B,)``, each sample's index in the set of samples."""
    labels: Tensor | None = None
    """``(B,)`` classes."""
    actions: Tensor | None = None
    """``(B, K, A)``: the K actions that follow the observation, where K is the largest ``ViewSpec.future``; zeros
    after the end of the episode."""
    contents: Tensor | None = None
    """``(B, S)`` int64: what each of the S parts of a sample shows, such as its picture and its caption, by any number.
    Samples with the same number in a column have that part in common."""
    hidden: Tensor | None = None
    """``(B, H, 2)`` int64: the place in its text and the number of each token that the masked view hides. Rows with
    fewer than H are filled up with 0, the number of padding."""


@dataclass(frozen=True)
class DataSpec:
    """Sizes of the data that a method may need when it is built; None if unknown."""

    count: int | None = None
    """Number of samples in the set: the rows of a bank with one row per sample."""
    classes: int | None = None
    """Number of classes of the labels."""
    action_dim: int | None = None
    """Size of an action."""
    vocabulary: int | None = None
    """Number of tokens, padding included."""
    text: FeatureSpec | None = None
    """Sizes of the text encoder's features, where texts have an encoder of their own beside the images'."""

    def images_for(self, method: str) -> int:
        """``count``, for a method that keeps something for each image.

        Raises:
            ValueError: it is unknown.
        """
        if self.count is None:
            raise ValueError(f"objectives.{method} needs the number of images, got none: give data=DataSpec(count=...)")
        return self.count


@dataclass(frozen=True)
class Result:
    """Result of ``forward``: the loss, detached metrics by name, and the input of ``after_step``."""

    loss: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)
    carry: Any = None


class Objective(nn.Module):
    """A self-supervised method: the heads that it adds, the memory that it keeps and the loss that it computes.

    A new method subclasses it in its own file, which ends with a :class:`~curl_rl.objectives.method.Method`.
    """

    online_views: tuple[ViewSpec, ...]
    """Views that the trained encoder encodes, with gradient."""
    target_views: tuple[ViewSpec, ...] = ()
    """Views that its slow copy encodes, without gradient."""
    views_together: bool = False
    """True to encode consecutive online views of the same shape as one batch. Batch norm then takes its statistics over
    all of them, otherwise over each view separately. Each method follows its released code."""
    reads_maps: bool = False
    """True if the loss reads ``Features.map`` or ``Features.middle``. If False, the processes of a pretraining run do
    not exchange these large maps, and the loss gets empty ones."""
    streams: int = 1
    """Number of parts of the vector that the method compares with each other, computed by separate networks from
    different channels (``FeatureSpec.streams``); 1: it takes the vector as a whole."""
    batch_dependent: bool = True
    """True if a sample's contribution to the loss depends on the rest of the batch: in-batch negatives, batch norm. The
    gradients of small batches then do not add up to that of one large batch."""
    needs: frozenset[Need] = frozenset()
    """Requirements of the method. A user that cannot meet them refuses the method before anything starts."""
    momentum_ahead: bool = False
    """Which step's momentum moves the slow copies after a step: False, this step's, as in BYOL's released code; True,
    the next one's, for methods whose released code moves them before it computes a step's keys (MoCo v3)."""
    projected: frozenset[str] = frozenset()
    """Names of parameters that ``after_step`` projects back onto a constraint set: prototypes of unit length, say."""

    @classmethod
    def build(cls, features: FeatureSpec, config: Any, data: DataSpec) -> Objective:
        """Builds the method for an encoder with these features. Methods that depend on sizes of the data override it.

        Raises:
            ValueError: a size is missing or does not fit the settings.
        """
        return cls(features, config)

    def forward(self, online: list[Features], target: list[Features], batch: BatchInfo) -> Result:
        """Computes the loss of one batch from the features of ``online_views`` and ``target_views``, in order. Pure."""
        raise NotImplementedError

    def try_out(self, features: FeatureSpec, batch_size: int, data: DataSpec = DataSpec()) -> None:
        """Computes one loss on empty features, so that anything the first step would refuse is refused at the start.

        The module must be on the meta device.

        Raises:
            ValueError: the batch does not fit the method or its settings.
        """
        if self.batch_dependent and batch_size < 2:
            raise ValueError(f"batch_size must be at least 2 for this objective, got {batch_size}")

        def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.empty(batch_size, *shape, dtype=dtype, device="meta")

        def encoded(spec: ViewSpec) -> Features:
            sizes = features if data.text is None or spec.modality == "image" else data.text
            middle = None if sizes.middle_shape is None else empty(*sizes.middle_shape)
            return Features(empty(sizes.dim), empty(*sizes.map_shape), middle)

        ahead = max(spec.future for spec in (*self.online_views, *self.target_views))
        batch = BatchInfo(
            indices=empty(dtype=torch.int64) if "indices" in self.needs else None,
            labels=empty(dtype=torch.int64) if "labels" in self.needs else None,
            actions=empty(ahead, data.action_dim or 1) if "actions" in self.needs else None,
            hidden=empty(1, 2, dtype=torch.int64) if "hidden" in self.needs else None,
        )
        online, target = ([encoded(spec) for spec in some] for some in (self.online_views, self.target_views))
        self(online, target, batch)

    def after_step(self, carry: Any, momentum: Tensor) -> None:
        """Called after the optimizer's step: moves the method's slow heads, enqueues keys, renormalizes.

        ``momentum`` is the momentum that the encoder's slow copy was moved with (1 if it did not move), a scalar.
        """

    def wants_all(self, epoch: int) -> Literal["online", "target"] | None:
        """The encoder that must encode every sample before this epoch, for :meth:`remember`; None for no such pass.

        The pass is the same as in evaluation: center views, evaluation mode, no gradient.
        """
        return None

    def remember(self, features: Features, batch: BatchInfo) -> None:
        """Stores the features of the samples in ``batch.indices`` in the method's bank."""

    def between_epochs(self, epoch: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Called before every epoch, after the calls of :meth:`remember` if any: clusters the bank, for example.

        All processes call it identically. ``generator``, on the CPU, depends only on the run's seed and the epoch.
        Returns metrics, detached scalars by name.
        """
        return {}

    def momentum(self, progress: Tensor) -> Tensor:
        """The momentum of the encoder's slow copy at ``progress`` in [0, 1], a scalar.

        The progress is that of the step just taken, or of the next one with :attr:`momentum_ahead`. In reinforcement
        learning SAC's ``encoder_tau`` overrides the momentum.
        """
        return torch.ones_like(progress)

    def projection_head(self) -> MLP | None:
        """The head that embeds the encoder's vector, if any, for fine-tuning from one of its layers."""
        return None

    def text_projection_head(self) -> MLP | None:
        """The head that embeds the vector of the encoder of texts beside one of images, if any."""
        return None

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The parameters as optimizer groups; a group may set its own learning rate or weight decay.

        ``"fixed_lr": True`` in a group keeps its learning rate constant under a schedule.
        """
        return [{"params": list(self.parameters())}]
