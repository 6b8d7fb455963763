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
    """Shapes of the features of one image: see :class:`Features`."""

    dim: int
    map_shape: tuple[int, int, int]
    middle_shape: tuple[int, int, int] | None = None


class Features(NamedTuple):
    """An encoded batch of B images.

    ``vector`` is ``(B, dim)``. ``map`` is the last map, ``(B, C, h, w)``, for methods that compare places. ``middle``
    is a map from halfway through the network, ``(B, c, h', w')``, whose places see less of the image; None for encoders
    whose last map is local already.
    """

    vector: Tensor
    map: Tensor
    middle: Tensor | None = None

    @property
    def local(self) -> Tensor:
        """The most local map there is: ``middle``, or ``map`` from an encoder without a middle."""
        return self.map if self.middle is None else self.middle


def map_features(f: Callable[[Tensor], Tensor], features: Features) -> Features:
    """``f`` of the vector and of each map."""
    middle = None if features.middle is None else f(features.middle)
    return Features(f(features.vector), f(features.map), middle)


def take_features(features: Features, rows: Tensor | slice) -> Features:
    """The features of some images: ``rows`` indexes the batch dimension."""
    return map_features(lambda part: part[rows], features)


def cat_features(parts: Sequence[Features]) -> Features:
    """Several batches of features as one, in their order.

    Raises:
        ValueError: some have a middle map and some have none.
    """
    middles = [part.middle for part in parts if part.middle is not None]
    if middles and len(middles) != len(parts):
        raise ValueError(f"features to join must all have a middle map or all have none, got {len(middles)} with one")
    return Features(
        torch.cat([part.vector for part in parts]),
        torch.cat([part.map for part in parts]),
        torch.cat(middles) if middles else None,
    )


def chunk_features(features: Features, n: int) -> list[Features]:
    """A batch of features in ``n`` equal parts: undoes :func:`cat_features` of ``n`` batches of one size.

    Raises:
        ValueError: the batch does not divide by ``n``.
    """
    if len(features.vector) % n:
        raise ValueError(f"a batch of features must divide into {n} equal parts, got {len(features.vector)} rows")
    middles = [None] * n if features.middle is None else features.middle.chunk(n)
    return [Features(*each) for each in zip(features.vector.chunk(n), features.map.chunk(n), middles, strict=True)]


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
