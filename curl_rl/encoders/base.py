"""The interface of an encoder, the features it returns, and how lists of features are joined and divided."""

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
    """Sizes of an encoder's features, without the batch."""

    dim: int
    """Of the vector."""
    map_shape: tuple[int, int, int]
    """``(C, h, w)`` of the map."""
    middle_shape: tuple[int, int, int] | None = None
    """``(C, h, w)`` of the map from halfway, where the encoder has one."""


class Features(NamedTuple):
    """One view, encoded."""

    vector: Tensor
    """``(B, dim)``."""
    map: Tensor
    """``(B, C, h, w)``, for methods that compare places."""
    middle: Tensor | None = None
    """``(B, C, h, w)`` from halfway through the encoder, whose places see less of the image, if it has one."""

    @property
    def local(self) -> Tensor:
        """The most local features: the middle, or the map of an encoder without one."""
        return self.map if self.middle is None else self.middle


def map_features(change: Callable[[Tensor], Tensor], features: Features) -> Features:
    """``change`` applied to the vector, the map and the middle."""
    vector, map_, middle = features
    return Features(change(vector), change(map_), None if middle is None else change(middle))


def cat_features(features: Sequence[Features]) -> Features:
    """Several batches as one, in that order.

    Raises:
        ValueError: some have a middle and some have none.
    """
    middles = [view.middle for view in features if view.middle is not None]
    if middles and len(middles) < len(features):
        raise ValueError("features with and without a middle cannot be joined: encode them all by one encoder")
    return Features(
        torch.cat([view.vector for view in features]),
        torch.cat([view.map for view in features]),
        torch.cat(middles) if middles else None,
    )


def chunk_features(features: Features, count: int) -> list[Features]:
    """``count`` equal, consecutive parts of a batch.

    Raises:
        ValueError: the batch does not divide.
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

    Subclasses implement what raises ``NotImplementedError`` here.
    """

    kind: ClassVar[str]
    """Name of this class of encoders in files."""
    any_size: ClassVar[bool] = False
    """Whether images of other sizes than ``input_shape`` are accepted, and give maps of other sizes."""

    precision: Precision
    """What the network computes in; may be set at any time. Parameters keep their type, and the vector has it too."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of the images that the encoder is made for."""
        raise NotImplementedError

    @property
    def feature_spec(self) -> FeatureSpec:
        """Shapes of what :meth:`encode` returns for images of ``input_shape``."""
        raise NotImplementedError

    @property
    def batch_norm_splits(self) -> int:
        """Equal parts of a training batch that the encoder's batch norm normalizes separately; 1: the whole batch."""
        return 1

    @property
    def title(self) -> str:
        """Class and size in a few words, for tables; not necessarily unique."""
        return type(self).__name__

    def encode(self, images: Tensor) -> Features:
        """Features of ``(B, C, H, W)`` images, uint8 in [0, 255] or floating point in [0, 1].

        Raises:
            ValueError: the images have another shape than the encoder accepts.
        """
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        return self.encode(images).vector

    def fresh(self: EncoderT, seed: int) -> EncoderT:
        """An untrained encoder of the same shape, in training mode: its weights depend on the seed alone.

        It has this one's precision, device and parameter type. No global random generator is touched.
        """
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """Kind, shape and preprocessing, as a file holds them: JSON values only.

        :func:`~curl_rl.encoders.kinds.build_encoder` rebuilds encoders of registered kinds from it.
        """
        raise NotImplementedError

    @classmethod
    def from_description(cls, input_shape: tuple[int, int, int], config: Mapping[str, Any]) -> Encoder:
        """An untrained encoder from the ``config`` of a description; for the kinds in ``curl_rl.encoders.kinds``.

        Raises:
            ValueError, KeyError, TypeError: the config is not one that :meth:`describe` returns.
        """
        raise NotImplementedError


@contextmanager
def weights_from(seed: int) -> Iterator[None]:
    """Networks built inside get their initial weights from ``seed``, on the CPU; global generators are unaffected.

    For :meth:`Encoder.fresh`: a seed gives the same weights whichever device they move to afterwards.
    """
    # Not torch.manual_seed, which would seed the generators of every GPU as well.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        yield
