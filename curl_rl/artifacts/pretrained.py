"""A trained encoder with its preprocessing: from an environment's images to features."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from curl_rl.augment import center_crop
from curl_rl.encoders import Encoder, Features, FeatureSpec, map_features
from curl_rl.encoders.float_range import FloatRange

Layout = Literal["auto", "CHW", "HWC", "SCHW", "SHWC"]
"""Order of an observation's last dimensions: S frames of a stack, C channels, H rows, W columns. In CHW and HWC, C
counts the channels of the whole stack; SCHW and SHWC keep the frames separate, oldest first, as frame-stacking wrappers
do. auto: CHW or HWC, whichever fits the shape."""

# Permutations from each order to (..., S, C, H, W) or (..., C, H, W).
_ORDERS = {"CHW": (-3, -2, -1), "HWC": (-1, -3, -2), "SCHW": (-4, -3, -2, -1), "SHWC": (-4, -1, -3, -2)}


class PretrainedEncoder(nn.Module):
    """A trained :class:`~curl_rl.PixelEncoder` or ResNet that takes an environment's observations.

    ``encoder(observations)`` takes ``(..., *image)`` with any batch shape, including none, and returns
    ``(..., features)``.

    - Order: the image is ``(C, H, W)`` or ``(H, W, C)``, inferred from its shape; an ambiguous shape is refused unless
      ``layout`` names the order. Separate frames, ``(S, H, W, C)`` or ``(S, C, H, W)``, always need a ``layout``.
    - Values: uint8 is divided by 255, floating point is multiplied by ``scale``. Nothing is ever inferred from values;
      if the first floats exceed 1 and ``scale`` is 1, a warning says so.
    - Size: a PixelEncoder sees the center crop of larger images, as in evaluation, and never resizes. It accepts frames
      rendered at a size other than ``rendered_size``, but they show the scene at another scale than in training. A
      ResNet takes any size.

    A frozen encoder stays in evaluation mode regardless of ``train()``, so that new images do not change its batch
    norm statistics.

    Args:
        encoder: the network.
        rendered_size: side of the frames or images that it was trained on, in pixels.
        provenance: how and on what it was trained.
        scale: factor on floating-point observations: 1 if they lie in [0, 1], 1/255 if they lie in [0, 255].
        layout: order of the observations' last dimensions.
        freeze: no gradients, and permanent evaluation mode.

    Raises:
        ValueError: an argument is invalid; in a call, the observations do not fit or their order is ambiguous.
    """

    def __init__(
        self,
        encoder: Encoder,
        rendered_size: int,
        provenance: dict[str, Any],
        *,
        scale: float = 1.0,
        layout: Layout = "auto",
        freeze: bool = False,
    ) -> None:
        super().__init__()
        if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not 0 < scale < math.inf:
            raise ValueError(f"scale must be positive: 1 for floats in [0, 1], 1/255 for [0, 255], got {scale}")
        if layout not in get_args(Layout):
            raise ValueError(f"layout must be one of {', '.join(get_args(Layout))}, got {layout!r}")
        self.encoder = encoder
        self._float_range = FloatRange()
        self.rendered_size = rendered_size
        """Side of the frames or images that the encoder was trained on, in pixels."""
        self.provenance = provenance
        """How the encoder was trained: task and frames, or data, method and epochs; preset, seed, versions."""
        self.scale = scale
        """Factor on floating-point observations."""
        self.layout: Layout = layout
        """Order of the observations' last dimensions."""
        self.frozen = freeze
        """Whether the encoder is fixed: no gradients, always in evaluation mode."""
        if freeze:
            self.requires_grad_(False).eval()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__dict__.setdefault("_float_range", FloatRange())  # absent in what earlier versions pickled

    @property
    def features(self) -> int:
        """Size of the feature vector."""
        return self.encoder.feature_spec.dim

    @property
    def feature_spec(self) -> FeatureSpec:
        """Sizes of the output of :meth:`encode` for one image; a ResNet's map depends on the image's size."""
        return self.encoder.feature_spec

    @property
    def observation_shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` that the encoder sees; C counts the channels of all frames of a stack."""
        return self.encoder.input_shape

    @property
    def side(self) -> int | None:
        """Side of the center crop that the encoder sees; None if it takes images of any size."""
        return None if self.encoder.any_size else self.encoder.input_shape[1]

    def train(self, mode: bool = True) -> PretrainedEncoder:
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def encode(self, observations: Tensor) -> Features:
        """``(..., *image)`` to vector ``(..., features)`` and maps ``(..., C, h, w)``."""
        images = self._channels_first(observations)
        if self.scale == 1:
            self._float_range.check(images, "set scale=1/255 for floats in [0, 255], or pass uint8")
        elif images.is_floating_point():
            # In half precision, 1/255 itself would be off by 0.1%.
            images = images.to(torch.promote_types(images.dtype, torch.float32)) * self.scale
        if self.side is not None:
            images = center_crop(images, self.side)
        batch = images.shape[:-3]
        # Skip the no-op reshape: it would add arithmetic on the batch size to an exported program.
        encoded = self.encoder.encode(images if len(batch) == 1 else images.reshape(-1, *images.shape[-3:]))
        if len(batch) == 1:
            return encoded
        return map_features(lambda part: part.reshape(*batch, *part.shape[1:]), encoded)

    def forward(self, observations: Tensor) -> Tensor:
        return self.encode(observations).vector

    def _channels_first(self, observations: Tensor) -> Tensor:
        """``(..., C, H, W)``, a view if the order allows it."""
        if not isinstance(observations, Tensor):
            kind = type(observations).__name__
            raise ValueError(f"expected a tensor of observations, got {kind}: convert an array with torch.as_tensor")
        if observations.dtype != torch.uint8 and not observations.is_floating_point():
            raise ValueError(f"expected uint8 or floating-point observations, got {observations.dtype}")
        shape = tuple(observations.shape)
        named: tuple[Layout, ...] = ("CHW", "HWC") if self.layout == "auto" else (self.layout,)
        fitting = [layout for layout in named if self._fits(shape, layout)]
        if not fitting:
            raise ValueError(self._misfit(shape))
        if len(fitting) > 1:
            raise ValueError(f"observations {shape} could be CHW or HWC: name the order with layout=")
        order = _ORDERS[fitting[0]]
        leading = len(shape) - len(order)
        images = observations.permute(*range(leading), *(len(shape) + place for place in order))
        return images.flatten(-4, -3) if len(order) == 4 else images

    def _fits(self, shape: tuple[int, ...], layout: Layout) -> bool:
        order = _ORDERS[layout]
        if len(shape) < len(order):
            return False
        *channels, height, width = (shape[place] for place in order)
        return math.prod(channels) == self.observation_shape[0] and min(height, width) >= (self.side or 1)

    def _misfit(self, shape: tuple[int, ...]) -> str:
        """One-line message for a shape that fits no order."""
        c, least = self.observation_shape[0], self.side or 1
        shapes: dict[Layout, str] = {
            "CHW": f"(..., {c}, H, W)",
            "HWC": f"(..., H, W, {c})",
            "SCHW": f"(..., S, C, H, W) with S·C = {c}",
            "SHWC": f"(..., S, H, W, C) with S·C = {c}",
        }
        wanted = f"{shapes['CHW']} or {shapes['HWC']}" if self.layout == "auto" else shapes[self.layout]
        stacks: tuple[Layout, ...] = ("SHWC", "SCHW")
        stacked = [layout for layout in stacks if self.layout == "auto" and self._fits(shape, layout)]
        hint = f" (for a stack of frames, layout={stacked[0]!r})" if stacked else ""
        return f"expected observations {wanted}, H and W at least {least}, got {shape}{hint}"
