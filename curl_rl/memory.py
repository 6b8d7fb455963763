"""Memory of the past: slow copies of networks (banks of embeddings come with the methods that need them)."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def momentum_copy(module: ModuleT) -> ModuleT:
    """A copy of ``module`` that takes no gradient: the target of a moving average."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def move_towards(targets: Iterable[Tensor], sources: Iterable[Tensor], tau: float) -> None:
    """target ← (1 − tau) target + tau source, in place, for each pair (MoCo, arXiv 1911.05722, equation 2).

    Raises:
        ValueError: unequal numbers of targets and sources.
    """
    target_list, source_list = list(targets), list(sources)
    if len(target_list) != len(source_list):
        raise ValueError(f"{len(target_list)} targets cannot move towards {len(source_list)} sources")
    torch._foreach_lerp_(target_list, source_list, tau)
