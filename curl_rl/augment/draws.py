"""One random number per image, drawn on the generator's device and never read by the host."""

from __future__ import annotations

import torch
from torch import Tensor


def uniform(batch: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """``(batch,)`` float32 numbers, uniform on [low, high)."""
    return torch.rand(batch, generator=generator, device=generator.device) * (high - low) + low


def chosen(batch: int, probability: float, generator: torch.Generator) -> Tensor:
    """``(batch,)`` bools, each True with this probability: never at 0, always at 1."""
    return torch.rand(batch, generator=generator, device=generator.device) < probability
