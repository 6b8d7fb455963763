"""Two ResNets side by side, one for the lightness of an image and one for its color (CMC, arXiv 1906.05849)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor

from curl_rl.encoders.base import Encoder, Features, FeatureSpec, Precision, weights_from
from curl_rl.encoders.color_spaces import ColorSpace, standardized
from curl_rl.encoders.resnet import ResNet, ResNetConfig


class TwoStreamEncoder(Encoder):
    """Two ResNets of the same shape, on one and on two channels of a color space. They share nothing, not even norms.

    Args:
        image_shape: ``(3, H, W)`` of the images that :attr:`feature_spec` describes; other sizes are accepted too.
        config: shape of each ResNet; without mean and std, because the channels are standardized already.
        space: the color space.
        precision: type that the ResNets compute in; colors are converted in the parameters'.

    ``encoder(images)`` takes ``(B, 3, H, W)`` RGB, uint8 in [0, 255] or floating point in [0, 1], and returns
    ``(B, 2 · dim)``, the lightness stream's vector before the color stream's; likewise the channels of the maps.

    Raises:
        ValueError: the images are not RGB, or the config has a mean or std.
    """

    kind: ClassVar[str] = "two_stream"
    any_size: ClassVar[bool] = True

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        config: ResNetConfig = ResNetConfig(),  # noqa: B008 (frozen)
        space: ColorSpace = "lab",
        precision: Precision = "float32",
    ) -> None:
        super().__init__()
        if image_shape[0] != 3:
            raise ValueError(f"images for two streams must be RGB, (3, H, W), got {tuple(image_shape)}: no stacks")
        if config.mean != (0.0,) or config.std != (1.0,):
            raise ValueError(
                "mean and std must be left out of the ResNets of two streams, whose inputs are standardized"
            )
        self.config, self.space = config, space
        self.lightness = ResNet((1, *image_shape[1:]), config, precision)
        self.color = ResNet((2, *image_shape[1:]), config, precision)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """``(3, H, W)`` of the images."""
        return (3, *self.lightness.input_shape[1:])

    @property
    def feature_spec(self) -> FeatureSpec:
        """Sizes of both streams' features together."""
        one = self.lightness.feature_spec
        assert one.middle_shape is not None
        channels, height, width = one.map_shape
        half, *middle = one.middle_shape
        return FeatureSpec(2 * one.dim, (2 * channels, height, width), (2 * half, middle[0], middle[1]), streams=2)

    @property
    def batch_norm_splits(self) -> int:
        """As configured."""
        return self.lightness.batch_norm_splits

    @property
    def title(self) -> str:
        """That of each ResNet, and the color space."""
        return f"two {self.lightness.title} on {'L and ab' if self.space == 'lab' else 'Y and CbCr'}"

    @property
    def precision(self) -> Precision:
        """Type that the ResNets compute in."""
        return self.lightness.precision

    @precision.setter
    def precision(self, precision: Precision) -> None:
        self.lightness.precision = self.color.precision = precision

    def encode(self, images: Tensor) -> Features:
        """``(B, 3, H, W)`` to the features of both streams, those of the lightness first."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images must be (B, 3, H, W), got {tuple(images.shape)}")
        with torch.autocast(images.device.type, enabled=False):  # half precision would visibly degrade the colors
            pixels = images.to(self.lightness.conv1.weight.dtype)
            pixels = standardized(pixels / 255 if images.dtype == torch.uint8 else pixels, self.space)
        lightness, color = self.lightness.encode(pixels[:, :1]), self.color.encode(pixels[:, 1:])
        assert lightness.middle is not None
        assert color.middle is not None
        return Features(
            torch.cat([lightness.vector, color.vector], 1),
            torch.cat([lightness.map, color.map], 1),
            torch.cat([lightness.middle, color.middle], 1),
        )

    def fresh(self, seed: int) -> TwoStreamEncoder:
        with weights_from(seed):
            new = TwoStreamEncoder(self.input_shape, self.config, self.space, self.precision)
        return new.to(self.lightness.conv1.weight)

    def describe(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "observation_shape": list(self.input_shape),
            "preprocessing": "uint8 divided by 255, floating point as it is; then to config.space, standardized",
            "config": {"space": self.space, "resnet": self.lightness.describe()["config"]},
        }

    @classmethod
    def from_description(cls, input_shape: tuple[int, int, int], config: Mapping[str, Any]) -> TwoStreamEncoder:
        if config["space"] not in get_args(ColorSpace):
            raise ValueError(f"space must be {' or '.join(get_args(ColorSpace))}, got {config['space']!r}")
        return cls(
            input_shape, ResNet.from_description((1, *input_shape[1:]), config["resnet"]).config, config["space"]
        )
