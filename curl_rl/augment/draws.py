"""One random number per image, drawn on the generator's device without the host ever looking at it."""

from __future__ import annotations

import torch
from torch import Tensor


def uniform(batch: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """``(batch,)`` float32 numbers, uniform on [low, high)."""
    return torch.rand(batch, generator=generator, device=generator.device) * (high - low) + low


def chosen(batch: int, probability: float, generator: torch.Generator) -> Tensor:
    """``(batch,)`` bools, each True with this probability: at 0 never, at 1 always."""
    return torch.rand(batch, generator=generator, device=generator.device) < probability
