"""Comparison of a loss's gradient with finite differences, with or without stopped gradients in the loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

Kind = Literal["of the value", "with stops", "wrong"]


def gradient_kind(loss: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Kind:
    """Classifies the gradient of a float64 scalar ``loss(*inputs)``.

    ``of the value``: the gradient of the loss itself. ``with stops``: that of the loss in which everything detached or
    computed without gradient is held at its value, like SimSiam's targets. ``wrong``: neither.
    """
    leaves = tuple(value.detach().requires_grad_() for value in inputs)
    if torch.autograd.gradcheck(loss, leaves, raise_exception=False):
        return "of the value"
    held = _HeldStops()
    with held:
        loss(*leaves)

    def with_stops(*values: Tensor) -> Tensor:
        with held.again():
            return loss(*values)

    return "with stops" if torch.autograd.gradcheck(with_stops, leaves, raise_exception=False) else "wrong"


class _HeldStops(TorchFunctionMode):
    """Records the values that leave the graph while a function runs, and reuses them in later runs."""

    def __init__(self) -> None:
        super().__init__()
        self._values: list[Tensor] = []
        self._next: int | None = None  # None: recording

    def again(self) -> _HeldStops:
        """The context for another run of the function."""
        self._next = 0
        return self

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        stops = func is Tensor.detach or not torch.is_grad_enabled()
        if not stops or not isinstance(result, Tensor):
            return result
        if self._next is None:
            self._values.append(result.clone())  # a copy: the function may write into it later
            return result
        self._next += 1
        return self._values[self._next - 1].clone()
