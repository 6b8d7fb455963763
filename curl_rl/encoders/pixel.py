"""The encoder of CURL: a few 3×3 convolutions, a linear layer and layer norm."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curl_rl.encoders.base import Encoder, Features, FeatureSpec, Precision, weights_from
from curl_rl.encoders.conv_relu import conv_relu
from curl_rl.encoders.memory_format import channels_last
from curl_rl.ranges import at_least, check_ranges, one_or_more


@dataclass(frozen=True)
class EncoderConfig:
    """Shape of a :class:`PixelEncoder`. The defaults are the CURL paper's (Table 3)."""

    filters: Annotated[int, at_least(1)] = 32
    """Output channels of every convolution."""
    strides: Annotated[tuple[int, ...], one_or_more(at_least(1), "be one or more positive integers")] = (2, 1, 1, 1)
    """Stride of each 3×3 convolution, first to last; the number of strides is the encoder's depth."""
    latent: Annotated[int, at_least(1)] = 50
    """Size of the feature vector."""

    def __post_init__(self) -> None:
        check_ranges(self)


def orthogonal_init(module: nn.Module) -> None:
    """Makes linear layers orthogonal, convolutions delta-orthogonal and biases zero, for use with ``Module.apply``.

    A delta-orthogonal kernel is zero except at its center, which is orthogonal with ReLU's gain (Xiao et al. 2018,
    arXiv 1806.05393, section 2.4), as in the released CURL code.
    """
    if isinstance(module, nn.Linear):
        nn.init.orthogonal_(module.weight)
    elif isinstance(module, nn.Conv2d):
        nn.init.zeros_(module.weight)
        height, width = module.kernel_size
        center = torch.empty_like(module.weight[:, :, 0, 0])
        nn.init.orthogonal_(center, gain=math.sqrt(2))
        with torch.no_grad():
            module.weight[:, :, height // 2, width // 2] = center
    if isinstance(module, (nn.Linear, nn.Conv2d)) and module.bias is not None:
        nn.init.zeros_(module.bias)


class Convolutions(nn.Module):
    """3×3 convolutions with ReLU: ``(B, C, H, W)`` to a map ``(B, filters, h, w)``.

    uint8 input is divided by 255; floating-point input is used unchanged, so nothing is ever scaled twice.
    ``precision`` is the type of the convolutions and of the map; weights keep theirs. (On NVIDIA GPUs PyTorch's float32
    convolutions use TensorFloat-32 unless ``torch.backends.cudnn.allow_tf32`` is False.)
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        filters: int,
        strides: tuple[int, ...],
        precision: Precision = "float32",
    ) -> None:
        super().__init__()
        channels, height, width = input_shape
        self.precision: Precision = precision
        self.layers = nn.ModuleList()
        for depth, stride in enumerate(strides):
            if min(height, width) < 3:
                raise ValueError(
                    f"an image of {input_shape[1]}×{input_shape[2]} is too small for {len(strides)} convolutions with "
                    f"strides {list(strides)}: only {height}×{width} remains before convolution {depth + 1}; "
                    "use larger images (a larger crop) or fewer or smaller strides"
                )
            self.layers.append(nn.Conv2d(channels, filters, 3, stride))
            channels, height, width = filters, (height - 3) // stride + 1, (width - 3) // stride + 1
        self.input_shape = input_shape
        self.output_shape = (channels, height, width)

    def forward(self, observation: Tensor) -> Tensor:
        if tuple(observation.shape[-3:]) != self.input_shape:
            raise ValueError(f"images must have shape {self.input_shape}, got {tuple(observation.shape[-3:])}")
        layers = cast("list[nn.Conv2d]", list(self.layers))
        dtype = layers[0].weight.dtype
        raw = observation.dtype == torch.uint8
        compute = torch.bfloat16 if self.precision == "bfloat16" else dtype
        # Bytes are exact in bfloat16. Scaling the first layer's few weights by 1/255 is cheaper than the many pixels.
        x = channels_last(observation).to(compute)
        trace = self._trace(observation) if self._on_cpu(observation) else None
        with torch.autocast(observation.device.type, enabled=False):  # the caller's would override the precision
            for depth, layer in enumerate(layers):
                weight = layer.weight / 255 if raw and depth == 0 else layer.weight
                assert layer.bias is not None
                own = trace if depth == len(layers) - 1 else None
                x = conv_relu(x, weight.to(compute), layer.bias.to(compute), layer.stride[0], own)
        return x

    @staticmethod
    def _on_cpu(observation: Tensor) -> bool:
        return observation.device.type == "cpu" and not torch.compiler.is_compiling()

    @torch.no_grad()
    def _trace(self, observation: Tensor) -> Tensor:
        """``(B, 1, 1, 1)``: 0 if the weights and the image's pixels are finite, else NaN. See :func:`conv_relu`."""
        total = torch.stack([parameter.sum() for parameter in self.layers.parameters()]).sum()
        if observation.dtype == torch.uint8:
            return (total * 0).expand(len(observation), 1, 1, 1)
        return (total + observation.sum((1, 2, 3), keepdim=True)) * 0


class Projection(nn.Module):
    """Flattening, a linear layer and layer norm: ``(B, C, h, w)`` to ``(B, latent)``.

    The map is flattened row by row with the channels innermost, which is its order in memory after convolutions in
    channels_last order, so nothing is copied. The product uses the map's type, the norm the parameters'.
    """

    def __init__(self, map_shape: tuple[int, int, int], latent: int) -> None:
        super().__init__()
        self.linear = nn.Linear(math.prod(map_shape), latent)
        self.norm = nn.LayerNorm(latent)

    def forward(self, feature_map: Tensor) -> Tensor:
        flat, parameters = feature_map.permute(0, 2, 3, 1).flatten(1), self.linear.weight.dtype
        with torch.autocast(flat.device.type, enabled=False):
            product = F.linear(flat, self.linear.weight.to(flat.dtype), self.linear.bias.to(flat.dtype))
            normalized: Tensor = self.norm(product.to(parameters))
        return normalized


class PixelEncoder(Encoder):
    """The encoder of CURL, and of SAC+AE before it: convolutions, a linear layer, layer norm; no tanh.

    Args:
        observation_shape: ``(C, H, W)`` of the input; a stack of three RGB frames has C = 9.
        config: filters, strides (and thus depth) and size of the feature vector.
        precision: type of the convolutions and of the map.

    ``encoder(observation)`` takes ``(B, C, H, W)``, uint8 in [0, 255] or floating point in [0, 1], and returns
    ``(B, latent)``. Its two halves, ``encoder.convolutions`` and ``encoder.projection``, can be called separately:
    SAC's actor shares the first and has its own projection. The map is already local, so there is no middle map.

    Raises:
        ValueError: the image is too small for the convolutions, or an input has the wrong shape.
    """

    kind: ClassVar[str] = "pixel"

    def __init__(
        self,
        observation_shape: tuple[int, int, int],
        config: EncoderConfig = EncoderConfig(),
        precision: Precision = "float32",
    ) -> None:
        super().__init__()
        self.config = config
        self.convolutions = Convolutions(observation_shape, config.filters, config.strides, precision)
        self.projection = Projection(self.convolutions.output_shape, config.latent)
        self.apply(orthogonal_init)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of the input."""
        return self.convolutions.input_shape

    @property
    def observation_shape(self) -> tuple[int, int, int]:
        """Alias of ``input_shape``."""
        return self.input_shape

    @property
    def feature_spec(self) -> FeatureSpec:
        """Sizes of the vector and the map; there is no middle map."""
        return FeatureSpec(self.config.latent, self.convolutions.output_shape)

    @property
    def title(self) -> str:
        """Depth and width."""
        return f"PixelEncoder, {len(self.config.strides)} layers of {self.config.filters}"

    @property
    def precision(self) -> Precision:
        """Type that the convolutions compute in."""
        return self.convolutions.precision

    @precision.setter
    def precision(self, precision: Precision) -> None:
        self.convolutions.precision = precision

    def encode(self, images: Tensor) -> Features:
        """``(B, C, H, W)`` to the vector and the map that it is computed from."""
        feature_map = self.convolutions(images)
        return Features(self.projection(feature_map), feature_map)

    def fresh(self, seed: int) -> PixelEncoder:
        with weights_from(seed):
            new = PixelEncoder(self.input_shape, self.config, self.precision)
        return new.to(self.projection.linear.weight)

    def describe(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "observation_shape": list(self.input_shape),
            "flattening": "the last convolution's map row by row, channels innermost",
            "preprocessing": "crop to the middle; uint8 divided by 255, floating point as it is",
            "config": dataclasses.asdict(self.config),
        }

    @classmethod
    def from_description(cls, input_shape: tuple[int, int, int], config: Mapping[str, Any]) -> PixelEncoder:
        return cls(input_shape, EncoderConfig(config["filters"], tuple(config["strides"]), config["latent"]))
