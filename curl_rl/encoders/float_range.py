"""A warning for floating-point images outside [0, 1], which most often still lie in [0, 255]."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor


class FloatRange:
    """Checks the first batch of floating-point images, and no other: reading a value makes the host wait for a GPU."""

    def __init__(self) -> None:
        self._checked = False

    def __deepcopy__(self, memo: object) -> FloatRange:
        return self  # a network and its slow copy warn once

    def check(self, images: Tensor, remedy: str) -> None:
        """Warns if the images are floating point and exceed 1.

        Does nothing while a graph is compiled, exported, traced or captured, because no value can be read there.

        Args:
            images: of any shape.
            remedy: completes the warning.
        """
        if self._checked or not images.is_floating_point() or not images.numel() or _is_symbolic(images):
            return
        self._checked = True
        if (highest := float(images.detach().amax())) > 1:
            warnings.warn(f"floating-point images must lie in [0, 1], got {highest:g}: {remedy}", stacklevel=3)


def _is_symbolic(images: Tensor) -> bool:
    if type(images) is not Tensor or images.is_meta or torch.compiler.is_compiling():
        return True
    if torch.jit.is_tracing():  # type: ignore[attr-defined]
        return True
    return images.is_cuda and torch.cuda.is_current_stream_capturing()
