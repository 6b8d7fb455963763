"""The kinds of encoders that can be rebuilt from their description, and therefore saved to files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from curl_rl.encoders.base import Encoder
from curl_rl.encoders.pixel import PixelEncoder
from curl_rl.encoders.resnet import ResNet
from curl_rl.encoders.text import TextEncoder
from curl_rl.encoders.two_stream import TwoStreamEncoder
from curl_rl.encoders.two_tower_text import TwoTowerTextEncoder

KINDS: dict[str, type[Encoder]] = {
    encoder.kind: encoder for encoder in (PixelEncoder, ResNet, TwoStreamEncoder, TextEncoder, TwoTowerTextEncoder)
}
"""Classes by the ``kind`` in a description. A new one needs ``describe``, ``from_description`` and an entry here."""


def build_encoder(description: Mapping[str, Any]) -> Encoder:
    """Builds an untrained encoder from what :meth:`Encoder.describe` returned; ``kind`` defaults to ``pixel``.

    Raises:
        ValueError, KeyError, TypeError: the description is not that of any encoder.
    """
    kind = description.get("kind", "pixel")
    if kind not in KINDS:
        raise ValueError(f"kind must be {' or '.join(KINDS)}, got {kind!r}")
    shape = tuple(description["observation_shape"])
    if len(shape) != 3 or any(type(side) is not int for side in shape) or min(shape) < 1:
        raise ValueError(f"observation_shape must be three positive integers (C, H, W), got {list(shape)}")
    return KINDS[kind].from_description(shape, description["config"])


def require_registered(encoder: nn.Module) -> Encoder:
    """Returns ``encoder`` if :func:`build_encoder` can rebuild it.

    Raises:
        ValueError: its class is not registered in :data:`KINDS`.
    """
    if not isinstance(encoder, Encoder) or encoder.kind not in KINDS:
        classes = " or ".join(f"a {registered.__name__}" for registered in KINDS.values())
        raise ValueError(f"the encoder must be {classes}, got a {type(encoder).__name__}")
    return encoder
