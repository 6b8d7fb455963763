"""Heads: the projectors and predictors that self-supervised methods put on an encoder's vector."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

Last = Literal["affine", "linear", "scaled", "standardized"]


class BatchNorm(nn.BatchNorm1d):
    """Batch norm that always uses the statistics of the current batch, in evaluation too, and keeps no running ones.

    ``forward`` therefore changes no state of a head: the two views of a batch, the slow copy and a foreign training
    loop cannot disturb each other's running averages.

    Args:
        size: number of features.
        scale: learn a factor for each feature.
        shift: learn an offset for each feature.
    """

    def __init__(self, size: int, *, scale: bool, shift: bool) -> None:
        super().__init__(size, affine=scale or shift, track_running_stats=False)
        # PyTorch offers both or neither.
        if not scale:
            self.register_parameter("weight", None)
        if not shift:
            self.register_parameter("bias", None)

    def forward(self, x: Tensor) -> Tensor:
        if len(x) < 2:
            raise ValueError(f"batch norm in a head needs at least 2 samples in a batch (batch_size), got {len(x)}")
        return super().forward(x)


class MLP(nn.Module):
    """Linear layers with ReLU between them: ``(B, sizes[0])`` to ``(B, sizes[-1])``.

    Args:
        sizes: sizes of the input and of each layer's output; a single size makes an empty head, the identity.
        batch_norm: put batch norm before each ReLU.
        last: what follows the product of the last layer, which has no ReLU. ``linear``: nothing; ``affine``: a bias;
            ``scaled``: batch norm with a learned scale but no shift; ``standardized``: batch norm with neither.

    ``layers`` is a Sequential with one child per layer, norm and ReLU included, so ``head.layers[:1]`` is the part that
    SimCLR v2 (arXiv 2006.10029, section 2) keeps for fine-tuning. Layers followed by batch norm have no bias, since the
    norm would remove it.

    Raises:
        ValueError: no sizes, or one below 1; in ``forward``, a batch of 1 in a head with batch norm.
    """

    def __init__(self, sizes: Sequence[int], *, batch_norm: bool, last: Last) -> None:
        super().__init__()
        if not sizes or min(sizes) < 1:
            raise ValueError(f"sizes of a head must be one or more positive integers, got {list(sizes)}")
        hidden: list[nn.Module] = []
        for fan_in, fan_out in pairwise(sizes[:-1]):
            linear = nn.Linear(fan_in, fan_out, bias=not batch_norm)
            norm = [BatchNorm(fan_out, scale=True, shift=True)] if batch_norm else []
            hidden.append(nn.Sequential(linear, *norm, nn.ReLU()))
        self.layers = nn.Sequential(*hidden)
        if len(sizes) > 1:
            parts: list[nn.Module] = [nn.Linear(sizes[-2], sizes[-1], bias=last == "affine")]
            if last in ("scaled", "standardized"):
                parts.append(BatchNorm(sizes[-1], scale=last == "scaled", shift=False))
            self.layers.append(nn.Sequential(*parts))

    def forward(self, vector: Tensor) -> Tensor:
        embedding: Tensor = self.layers(vector)
        return embedding


class ResidualHead(nn.Module):
    """A hidden layer beside a linear shortcut: ``(N, inputs)`` to ``(N, units)`` (DIM, AMDIM).

    The shortcut starts as a noisy copy of the input, if there are at least as many units. For a feature map, N counts
    the places of all samples: the layers are 1×1 convolutions, written as products.

    Args:
        inputs: size of the input.
        units: size of the hidden layer, which has batch norm, and of the output.
        norm: what normalizes the sum. layer: layer norm. batch: batch norm. none: nothing.
        shift: give that norm a learned offset. Without, for keys whose common offset a softmax would cancel.
        zero: start the hidden layer's product at zero, so that only the shortcut counts (AMDIM).
    """

    def __init__(
        self,
        inputs: int,
        units: int,
        *,
        norm: Literal["none", "layer", "batch"] = "none",
        shift: bool = True,
        zero: bool = False,
    ) -> None:
        super().__init__()
        # Batch norm removes the offset of what it normalizes.
        self.hidden = MLP([inputs, units, units], batch_norm=True, last="linear" if norm == "batch" else "affine")
        self.shortcut = nn.Linear(inputs, units, bias=False)
        self.norm: nn.Module = nn.Identity()
        if norm == "layer":
            self.norm = nn.LayerNorm(units, bias=shift)
        elif norm == "batch":
            self.norm = BatchNorm(units, scale=True, shift=shift)
        with torch.no_grad():
            if units >= inputs:
                self.shortcut.weight.uniform_(-0.01, 0.01).fill_diagonal_(1)
            if zero:
                for parameter in self.hidden.layers[-1].parameters():
                    parameter.zero_()

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.norm(self.hidden(x) + self.shortcut(x))
        return output


def plain_batch_norm(norm: nn.BatchNorm1d) -> nn.BatchNorm1d:
    """Batch norm with the weights of ``norm`` and newly initialized running statistics."""
    plain = nn.BatchNorm1d(norm.num_features, norm.eps, affine=False)
    plain.weight, plain.bias = norm.weight, norm.bias
    return plain


def zero_linear(dim: int, classes: int, like: Tensor) -> nn.Linear:
    """A linear layer of zeros with the device and type of ``like``; draws no random numbers."""
    layer = nn.utils.skip_init(nn.Linear, dim, classes, device=like.device, dtype=like.dtype)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
