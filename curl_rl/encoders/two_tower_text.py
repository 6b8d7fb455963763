"""Two Transformers side by side that read the same text (Quick-Thoughts, arXiv 1803.02893)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from curl_rl.encoders.base import Encoder, Features, FeatureSpec, Precision, weights_from
from curl_rl.encoders.text import TextEncoder, TextEncoderConfig


class TwoTowerTextEncoder(Encoder):
    """Two :class:`~curl_rl.encoders.TextEncoder` of the same shape, which share nothing.

    ``encoder(tokens)`` returns ``(B, 2 · width)``, the first tower's vector before the second one's; likewise the
    channels of the map. Arguments as of :class:`~curl_rl.encoders.TextEncoder`.
    """

    kind: ClassVar[str] = "two_tower_text"
    any_size: ClassVar[bool] = True

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        config: TextEncoderConfig = TextEncoderConfig(),  # noqa: B008 (frozen)
        precision: Precision = "float32",
    ) -> None:
        super().__init__()
        self.first = TextEncoder(input_shape, config, precision)
        self.second = TextEncoder(input_shape, config, precision)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """``(V, 1, L)``."""
        return self.first.input_shape

    @property
    def feature_spec(self) -> FeatureSpec:
        """Sizes of both towers' features together."""
        dim, (channels, height, width), *_ = self.first.feature_spec
        return FeatureSpec(2 * dim, (2 * channels, height, width), streams=2)

    @property
    def title(self) -> str:
        """That of each tower."""
        return f"two towers of {self.first.title}"

    @property
    def precision(self) -> Precision:
        """Type that both compute in."""
        return self.first.precision

    @precision.setter
    def precision(self, precision: Precision) -> None:
        self.first.precision = self.second.precision = precision

    def encode(self, tokens: Tensor) -> Features:
        """``(B, l)`` int64 to the features of both towers, the first one's before the second one's."""
        first, second = self.first.encode(tokens), self.second.encode(tokens)
        return Features(torch.cat([first.vector, second.vector], 1), torch.cat([first.map, second.map], 1))

    def fresh(self, seed: int) -> TwoTowerTextEncoder:
        with weights_from(seed):
            new = TwoTowerTextEncoder(self.input_shape, self.first.config, self.precision)
        return new.to(self.first.positions)

    def describe(self) -> dict[str, Any]:
        return {**self.first.describe(), "kind": self.kind}

    @classmethod
    def from_description(cls, input_shape: tuple[int, int, int], config: Mapping[str, Any]) -> TwoTowerTextEncoder:
        return cls(input_shape, TextEncoder.from_description(input_shape, config).config)
