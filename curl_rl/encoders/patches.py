"""An encoder of overlapping patches, each seen alone, for methods that predict one part of an image from another."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from curl_rl.encoders.base import Encoder, Features, FeatureSpec, Precision
from curl_rl.encoders.resnet import ResNet


class PatchEncoder(Encoder):
    """A ResNet that encodes each patch of a grid by itself; neighbors overlap by half (arXiv 1807.03748, section 3.3).

    Args:
        trunk: built for the whole images, with group norm: batch norm would let patches see each other.
        patch: side of a patch in pixels, even. Patches start every ``patch / 2`` pixels from the upper left corner;
            pixels that do not fill a further one are left out.

    ``encode`` takes ``(B, C, H, W)`` and returns a map ``(B, dim, rows, columns)`` of the patches' vectors, and their
    mean. Only the trunk has weights, and it is what a run saves (:attr:`exported`): it encodes whole images, too.

    Raises:
        ValueError: the trunk has batch norm, or ``patch`` is odd or leaves fewer than two rows or columns.
    """

    kind: ClassVar[str] = "patches"

    def __init__(self, trunk: ResNet, patch: int) -> None:
        super().__init__()
        if trunk.config.norm != "group":
            raise ValueError(
                f"encoder.resnet.norm must be group with encoder.patch, got {trunk.config.norm}: through the "
                "statistics of a batch, patches would see each other"
            )
        if patch < 2 or patch % 2:
            raise ValueError(f"encoder.patch must be an even number of pixels, got {patch}")
        self.trunk, self.patch = trunk, patch
        self._grid = tuple((side - patch) // (patch // 2) + 1 for side in trunk.input_shape[1:])
        if min(self._grid) < 2:
            height, width = trunk.input_shape[1:]
            raise ValueError(f"encoder.patch must be at most two thirds of {height}×{width} pixels, got {patch}")

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """The trunk's: ``(C, H, W)`` of the whole images."""
        return self.trunk.input_shape

    @property
    def feature_spec(self) -> FeatureSpec:
        """The trunk's vector, once and for each place of the grid."""
        rows, columns = self._grid
        return FeatureSpec(self.trunk.dim, (self.trunk.dim, rows, columns), patches=True)

    @property
    def title(self) -> str:
        """The trunk's, and the side of a patch."""
        return f"{self.trunk.title}, patches of {self.patch}"

    @property
    def precision(self) -> Precision:
        """The trunk's."""
        return self.trunk.precision

    @precision.setter
    def precision(self, precision: Precision) -> None:
        self.trunk.precision = precision

    @property
    def exported(self) -> ResNet:
        return self.trunk

    def encode(self, images: Tensor) -> Features:
        if tuple(images.shape[1:]) != self.input_shape:
            raise ValueError(f"images must have shape {self.input_shape}, got {tuple(images.shape[1:])}")
        step = self.patch // 2
        windows = images.unfold(2, self.patch, step).unfold(3, self.patch, step)  # (B, C, rows, columns, P, P)
        vectors = self.trunk(windows.permute(0, 2, 3, 1, 4, 5).flatten(0, 2))
        of_places = vectors.unflatten(0, (len(images), *self._grid)).permute(0, 3, 1, 2)
        return Features(of_places.mean((2, 3)), of_places)

    def fresh(self, seed: int) -> PatchEncoder:
        return PatchEncoder(self.trunk.fresh(seed), self.patch)

    def describe(self) -> dict[str, Any]:
        return self.trunk.describe()
