"""An encoder made from any PyTorch module."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from curl_rl.encoders.base import Encoder, Features, FeatureSpec, Precision, weights_from
from curl_rl.encoders.modes import evaluating


class ModuleEncoder(Encoder):
    """Makes an encoder of any module from images to vectors: a convolutional trunk, Stable-Baselines3's NatureCNN.

    Args:
        module: takes ``(B, C, H, W)`` floating point, returns ``(B, D)``. It is not copied: training one trains the
            other.
        observation_shape: ``(C, H, W)`` of the images that it expects.
        divisor: number that uint8 images are divided by before they enter the module; 1 for a module that divides by
            255 itself. Floating-point images are passed on unchanged.
        precision: float32: the module runs unchanged, under the caller's autocast if there is one. bfloat16: it runs
            under autocast, and its vector is converted back to the parameters' type.

    The feature map is the vector as a 1×1 map. The size of the vector is found by encoding an image of zeros.

    Raises:
        ValueError: the module does not return ``(B, D)``, or ``divisor`` is not positive.
    """

    kind: ClassVar[str] = "module"

    def __init__(
        self,
        module: nn.Module,
        observation_shape: tuple[int, int, int],
        *,
        divisor: float = 255.0,
        precision: Precision = "float32",
    ) -> None:
        super().__init__()
        if not divisor > 0:
            raise ValueError(f"divisor must be positive, got {divisor}")
        self.module, self.observation_shape, self.divisor = module, observation_shape, divisor
        self.precision = precision
        weight = next(module.parameters())
        with torch.no_grad(), evaluating(module):
            vector: Tensor = module(torch.zeros(1, *observation_shape, dtype=weight.dtype, device=weight.device))
        if vector.ndim != 2:
            raise ValueError(
                f"module {type(module).__name__} must return (B, D), got {tuple(vector.shape)}: "
                "end it with nn.Flatten()"
            )
        self.dim = vector.shape[1]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Alias of ``observation_shape``."""
        return self.observation_shape

    @property
    def feature_spec(self) -> FeatureSpec:
        """Size of the vector, which also serves as the map; there is no middle map."""
        return FeatureSpec(self.dim, (self.dim, 1, 1))

    @property
    def title(self) -> str:
        """Class of the module and size of the vector."""
        return f"{type(self.module).__name__}, {self.dim} features"

    def encode(self, images: Tensor) -> Features:
        """``(B, C, H, W)`` to the module's vector, also given as a ``(B, D, 1, 1)`` map."""
        dtype = next(self.module.parameters()).dtype
        if images.dtype == torch.uint8:
            images = images.to(dtype) / self.divisor
        rounded = self.precision == "bfloat16"
        with torch.autocast(images.device.type, torch.bfloat16) if rounded else nullcontext():
            vector: Tensor = self.module(images)
        if rounded:
            vector = vector.to(dtype)
        return Features(vector, vector[:, :, None, None])

    def fresh(self, seed: int) -> ModuleEncoder:
        """A copy with every layer reinitialized by its ``reset_parameters``, which PyTorch's own layers have.

        Any initialization that the module applied on top is not repeated.

        Raises:
            ValueError: a submodule has parameters but no ``reset_parameters``.
        """
        weight = next(self.module.parameters())
        new = copy.deepcopy(self).requires_grad_(True).train().cpu()
        with weights_from(seed):
            for part in new.module.modules():
                reset: Any = getattr(part, "reset_parameters", None)
                if reset is not None:
                    reset()
                elif next(part.parameters(recurse=False), None) is not None:
                    raise ValueError(
                        f"module {type(part).__name__} must have reset_parameters() to be reinitialized, got none: "
                        "add it, or build a new module"
                    )
        return new.to(weight.device)

    def describe(self) -> dict[str, Any]:
        """The module's class and the preprocessing; not enough to rebuild the module."""
        return {
            "kind": self.kind,
            "observation_shape": list(self.input_shape),
            "preprocessing": f"uint8 divided by {self.divisor:g}, floating point as it is",
            "config": {"module": type(self.module).__name__, "divisor": self.divisor},
        }
