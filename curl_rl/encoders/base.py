"""The encoder interface, the features it returns, and functions that join and split batches of features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

Precision = Literal["float32", "bfloat16"]

EncoderT = TypeVar("EncoderT", bound="Encoder")


# ---- features


class FeatureSpec(NamedTuple):
    """Sizes of an encoder's features, without the batch dimension."""

    dim: int
    """Size of the vector."""
    map_shape: tuple[int, int, int]
    """``(C, h, w)`` of the map."""
    middle_shape: tuple[int, int, int] | None = None
    """``(C, h, w)`` of the map from halfway through the encoder, if it has one."""
    streams: int = 1
    """Number of equal, consecutive parts of the vector that are computed from different channels of the image."""
    patches: bool = False
    """True if each place of the map is computed from a patch of the image of its own."""


class Features(NamedTuple):
    """The features of one view."""

    vector: Tensor
    """``(B, dim)``."""
    map: Tensor
    """``(B, C, h, w)``, for methods that compare positions in the image."""
    middle: Tensor | None = None
    """``(B, C, h, w)`` from halfway through the encoder, with smaller receptive fields, if the encoder has one."""

    @property
    def local(self) -> Tensor:
        """The most local features: ``middle``, or ``map`` if the encoder has no middle."""
        return self.map if self.middle is None else self.middle


def map_features(change: Callable[[Tensor], Tensor], features: Features) -> Features:
    """Applies ``change`` to the vector, the map and the middle."""
    vector, map_, middle = features
    return Features(change(vector), change(map_), None if middle is None else change(middle))


def cat_features(features: Sequence[Features]) -> Features:
    """Concatenates batches, in order.

    Raises:
        ValueError: only some of them have a middle.
    """
    middles = [view.middle for view in features if view.middle is not None]
    if middles and len(middles) < len(features):
        raise ValueError("features with and without a middle cannot be joined: encode them all with the same encoder")
    return Features(
        torch.cat([view.vector for view in features]),
        torch.cat([view.map for view in features]),
        torch.cat(middles) if middles else None,
    )


def chunk_features(features: Features, count: int) -> list[Features]:
    """Splits a batch into ``count`` equal, consecutive parts.

    Raises:
        ValueError: the batch size is not divisible by ``count``.
    """
    if len(features.vector) % count:
        raise ValueError(f"the batch must divide into {count} parts, got {len(features.vector)} samples")
    vectors, maps = features.vector.chunk(count), features.map.chunk(count)
    middles = [None] * count if features.middle is None else features.middle.chunk(count)
    return [Features(*parts) for parts in zip(vectors, maps, middles, strict=True)]


def take_features(features: Features, rows: Tensor) -> Features:
    """The samples in ``rows``, ``(R,)`` indices into the batch."""
    return map_features(lambda values: values[rows], features)


# ---- encoders


class Encoder(nn.Module):
    """A network from images to features: ``encoder(images)`` is ``encoder.encode(images).vector``.

    Subclasses implement the members that raise ``NotImplementedError`` here.
    """

    kind: ClassVar[str]
    """Name of this encoder class in files."""
    any_size: ClassVar[bool] = False
    """True if the encoder accepts images of sizes other than ``input_shape``; the maps then vary in size too."""

    precision: Precision
    """Type that the network computes in; may be set at any time. Parameters keep theirs, and the vector has it too."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of the images that the encoder is built for; of texts ``(V, 1, L)``: see ``TextEncoder``."""
        raise NotImplementedError

    @property
    def feature_spec(self) -> FeatureSpec:
        """Sizes of the features of images of ``input_shape``."""
        raise NotImplementedError

    @property
    def batch_norm_splits(self) -> int:
        """Number of equal parts of a training batch that batch norm normalizes separately; 1: the whole batch."""
        return 1

    @property
    def exported(self) -> Encoder:
        """The network that is saved: itself, unless it only applies another in a way that its training needs."""
        return self

    @property
    def title(self) -> str:
        """Class and size in a few words, for tables; not necessarily unique."""
        return type(self).__name__

    def encode(self, images: Tensor) -> Features:
        """Features of ``(B, C, H, W)`` images, uint8 in [0, 255] or floating point in [0, 1], or of ``(B, L)`` tokens.

        Raises:
            ValueError: the encoder does not accept images of this shape.
        """
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        return self.encode(images).vector

    def fresh(self: EncoderT, seed: int) -> EncoderT:
        """An untrained encoder of the same shape, in training mode, with weights that depend only on the seed.

        Keeps this encoder's precision, device and parameter type; uses no global random generator.
        """
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """Kind, shape and preprocessing as stored in files: JSON values only.

        :func:`~curl_rl.encoders.kinds.build_encoder` rebuilds encoders of registered kinds from this description.
        """
        raise NotImplementedError

    @classmethod
    def from_description(cls, input_shape: tuple[int, int, int], config: Mapping[str, Any]) -> Encoder:
        """An untrained encoder from the ``config`` of a description; for the kinds in ``curl_rl.encoders.kinds``.

        Raises:
            ValueError, KeyError, TypeError: :meth:`describe` does not return such a config.
        """
        raise NotImplementedError


@contextmanager
def weights_from(seed: int) -> Iterator[None]:
    """Draws the initial weights of networks built in the block from ``seed``, on the CPU; keeps global generators.

    For :meth:`Encoder.fresh`: a seed gives the same weights whichever device they move to afterwards.
    """
    # torch.manual_seed would also seed the generators of every GPU.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        yield
