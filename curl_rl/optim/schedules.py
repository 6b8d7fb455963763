"""Learning rates: scaling with the batch size, and schedules over the steps of a run."""

from __future__ import annotations

import math
from typing import Literal, overload

import torch
from torch import Tensor

LearningRateScaling = Literal["none", "linear", "sqrt"]


def scaled_learning_rate(rate: float, batch_size: int, scaling: LearningRateScaling) -> float:
    """The learning rate for a batch of ``batch_size`` source images.

    none: ``rate`` itself. linear: rate · B/256 (Goyal et al. 2017, arXiv 1706.02677; SimCLR, arXiv 2002.05709, section
    2.2, with rate 0.3). sqrt: rate · √B (SimCLR, appendix B.1, with rate 0.075).

    Raises:
        ValueError: ``batch_size`` is below 1, or the scaling is unknown.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if scaling == "none":
        return rate
    if scaling == "linear":
        return rate * batch_size / 256
    if scaling == "sqrt":
        return rate * math.sqrt(batch_size)
    raise ValueError(f"scaling must be none, linear or sqrt, got {scaling!r}")


@overload
def warmup_cosine(step: float, warmup_steps: int, total_steps: int) -> float: ...
@overload
def warmup_cosine(step: Tensor, warmup_steps: int, total_steps: int) -> Tensor: ...
def warmup_cosine(step: float | Tensor, warmup_steps: int, total_steps: int) -> float | Tensor:
    """Fraction of the learning rate at ``step``: rises linearly from 0 to 1, then falls along half a cosine to 0.

    s / W for s < W, then (1 + cos(π (s − W) / (T − W))) / 2, and 0 after T (Loshchilov & Hutter 2016, arXiv 1608.03983,
    equation 5, without restarts). Steps count from 0; with a warm-up the first has rate 0, as in SimCLR's code.

    Args:
        step: steps taken so far, of any shape; a float gives a float, a tensor a tensor on its device.
        warmup_steps: W; 0 for no warm-up.
        total_steps: T, the steps of the whole run, warm-up included.

    Raises:
        ValueError: the warm-up is negative or not shorter than the run.
    """
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(
            f"warmup_steps must be 0 or more and below total_steps, got {warmup_steps} of {total_steps} steps"
        )
    if not isinstance(step, Tensor):
        return float(warmup_cosine(torch.tensor(step, dtype=torch.float64), warmup_steps, total_steps))
    progress = ((step - warmup_steps) / (total_steps - warmup_steps)).clamp(0, 1)
    return torch.where(step < warmup_steps, step / max(warmup_steps, 1), (1 + torch.cos(math.pi * progress)) / 2)


def set_learning_rates(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Sets each group's learning rate to ``share`` of its initial one; groups with ``"fixed_lr": True`` keep all of it.

    The group stores its initial rate as ``initial_lr``, so it is part of the optimizer's state dict. A learning rate
    that is a tensor is changed in place, so that a captured CUDA graph sees the change.
    """
    for group in optimizer.param_groups:
        initial = group.setdefault("initial_lr", float(group["lr"]))
        rate = initial if group.get("fixed_lr", False) else initial * share
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
