"""Slow copies of networks that follow them by a moving average, and the schedule of their momentum."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def momentum_copy(module: ModuleT) -> ModuleT:
    """A copy of ``module`` without gradients: the target of a moving average."""
    return copy.deepcopy(module).requires_grad_(False)


def momentum_buffers(module: ModuleT) -> ModuleT:
    """A :func:`momentum_copy` whose weights are buffers, under the same names and in the same order.

    For a slow copy inside a module that also learns: it is saved and moved between devices with that module, whose
    ``parameters()`` still lists only what an optimizer may change.
    """
    slow = momentum_copy(module)
    for part in slow.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, parameter.detach())
    return slow


@torch.no_grad()
def move_towards(targets: Iterable[Tensor], sources: Iterable[Tensor], tau: float | Tensor) -> None:
    """target ← (1 − tau) target + tau source, in place, for each pair (MoCo, arXiv 1911.05722, equation 2).

    ``tau`` is a number, or a scalar tensor on the targets' device, which the host never reads.

    Raises:
        ValueError: the numbers of targets and sources differ.
    """
    target_list, source_list = list(targets), list(sources)
    if len(target_list) != len(source_list):
        raise ValueError(f"{len(target_list)} targets cannot move towards {len(source_list)} sources")
    if isinstance(tau, Tensor):
        # lerp would read the tensor on the host, or require one weight per element.
        torch._foreach_mul_(target_list, 1 - tau)
        torch._foreach_add_(target_list, torch._foreach_mul(source_list, tau))
    else:
        torch._foreach_lerp_(target_list, source_list, tau)


def cosine_momentum(start: float, progress: Tensor) -> Tensor:
    """1 − (1 − start)(cos(π progress) + 1)/2: from ``start`` at progress 0 to 1 at progress 1.

    As in BYOL (arXiv 2006.07733, section 3.3) and, following it, MoCo v3.
    """
    return 1 - (1 - start) * (torch.cos(math.pi * progress) + 1) / 2
