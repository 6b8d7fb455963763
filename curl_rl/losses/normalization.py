"""Embeddings of length 1."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from curl_rl.losses.half_precision import widened

_SHORTEST = 1e-12  # F.normalize's


def unit_rows(embeddings: Tensor) -> Tensor:
    """``(B, D)`` embeddings of length 1, in float32 or wider: ``F.normalize`` with half of its time.

    The gradient by x of y = x / |x| is (g − y (y · g)) / |x|: what of g is across y. PyTorch's operations compute it in
    twice as many passes over the embeddings.

    Returns:
        ``(B, D)``; rows shorter than 1e-12 are divided by that. It can be differentiated once.
    """
    embeddings = widened(embeddings)
    if torch.compiler.is_compiling():  # a compiler fuses the operations itself
        return F.normalize(embeddings)
    result: Tensor = _UnitRows.apply(embeddings)
    return result


class _UnitRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, embeddings: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(embeddings, dim=1, keepdim=True)
        inverse = length.clamp_min(_SHORTEST).reciprocal()
        unit = embeddings * inverse
        ctx.save_for_backward(unit, inverse, length < _SHORTEST)
        return unit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        unit, inverse, short = ctx.saved_tensors
        along = (gradient * unit).sum(1, keepdim=True).masked_fill_(short, 0)
        return torch.addcmul(gradient, unit, along, value=-1).mul_(inverse)
