"""A convolution fused with the ReLU that follows it: on a CPU the ReLU then costs nothing.

A separate ReLU over a bfloat16 map reads and writes as many bytes as the convolution and takes as long. oneDNN applies
it while the convolution's results are still in registers; PyTorch exposes that only to its compiler, without a
gradient. This module adds the gradient.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# A private operation, meant for PyTorch's compiler. Where it is missing, everything still works, only more slowly.
_FUSED = getattr(torch.ops.mkldnn, "_convolution_pointwise", None) if torch.backends.mkldnn.is_available() else None

FUSES_BFLOAT16: bool = _FUSED is not None and torch.ops.mkldnn._is_mkldnn_bf16_supported()
"""True if oneDNN supports bfloat16 on this CPU; without native instructions it widens the numbers and is slower."""


def conv_relu(x: Tensor, weight: Tensor, bias: Tensor, stride: int, trace: Tensor | None = None) -> Tensor:
    """max(0, x * weight + bias): a convolution without padding, followed by ReLU.

    Args:
        x: ``(B, C, H, W)``, preferably in channels_last order.
        weight: ``(O, C, k, k)`` of ``x``'s type.
        bias: ``(O,)`` of ``x``'s type.
        stride: in both directions.
        trace: ``(B, 1, 1, 1)``, 0 for images computed from finite numbers and NaN for others. oneDNN's ReLU turns NaN
            into 0, which would hide a diverged network; where it is used, each image's trace is added to the first
            number of its map.

    Returns:
        ``(B, O, h, w)``. For finite numbers, values and first and second derivatives equal those of ``conv2d`` and
        ``relu``.
    """
    fusable = x.device.type == "cpu" and (x.dtype == torch.float32 or (x.dtype == torch.bfloat16 and FUSES_BFLOAT16))
    # Exported and compiled programs must contain only public PyTorch operations.
    if _FUSED is None or not fusable or torch.compiler.is_compiling():
        return F.conv2d(x, weight, bias, stride).relu()
    result: Tensor = _ConvReLU.apply(x, weight, bias, stride, trace)
    return result


class _ConvReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, stride: int, trace: Tensor | None) -> Tensor:
        assert _FUSED is not None
        y: Tensor = _FUSED(x, weight, bias, [0, 0], [stride, stride], [1, 1], 1, "relu", [], "")
        if trace is not None:
            y[:, :1, :1, :1] += trace
        ctx.save_for_backward(x, weight, y)
        ctx.stride = stride
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, y = ctx.saved_tensors
        before_relu = torch.ops.aten.threshold_backward(grads[0], y, 0)
        needed = list(ctx.needs_input_grad[:3])
        stride = [ctx.stride, ctx.stride]
        return (
            *torch.ops.aten.convolution_backward(
                before_relu, x, weight, [len(weight)], stride, [0, 0], [1, 1], False, [0, 0], 1, needed
            ),
            None,
            None,
        )
