"""LARS: momentum with the step size adapted per layer, for large batches (You et al. 2017, arXiv 1708.03888)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class LARS(torch.optim.Optimizer):
    """Layer-wise adaptive rate scaling, as SimCLR uses it (arXiv 2002.05709, section 2.2).

    For each parameter w with gradient ∇ and velocity v, which starts at zero::

        g = ∇ + weight_decay · w
        v ← momentum · v + lr · trust · g,   trust = trust_coefficient · ‖w‖ / ‖g‖
        w ← w − v

    The trust ratio is 1 where ‖w‖ or ‖g‖ is zero, and throughout a group with ``"adapt": False``
    (:func:`parameter_groups` makes one of biases and norms). The learning rate is part of the velocity, as in algorithm
    1 of the paper, so later changes of it do not rescale the accumulated velocity. (The paper divides by
    ‖∇‖ + weight_decay · ‖w‖; SimCLR's code, like this one, by the norm of the sum.)

    Args:
        params: parameters, or groups of them; all parameters of a group must be on the same device.
        lr: learning rate; use a tensor on the parameters' device to change it under a captured CUDA graph.
        momentum: fraction of the velocity kept from step to step, in [0, 1).
        weight_decay: factor of the L2 penalty.
        trust_coefficient: η in the paper.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float | Tensor,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.001,
    ) -> None:
        if not isinstance(lr, Tensor) and lr < 0:
            raise ValueError(f"lr must be 0 or more, got {lr}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {momentum}")
        if weight_decay < 0:
            raise ValueError(f"weight_decay must be 0 or more, got {weight_decay}")
        if trust_coefficient <= 0:
            raise ValueError(f"trust_coefficient must be positive, got {trust_coefficient}")
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
            "adapt": True,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates all parameters that have a gradient; ``closure``, if any, recomputes the loss, which is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            pairs = [(weight, weight.grad) for weight in group["params"] if weight.grad is not None]
            if pairs:
                self._step([weight for weight, _ in pairs], [gradient for _, gradient in pairs], group)
        return loss

    def _step(self, weights: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> None:
        lr = group["lr"]
        for weight in weights:
            if not self.state[weight]:
                self.state[weight]["velocity"] = torch.zeros_like(weight)
        velocities = [self.state[weight]["velocity"] for weight in weights]

        decayed = torch._foreach_add(gradients, weights, alpha=group["weight_decay"])
        if group["adapt"]:
            weight_norms = torch.stack(torch._foreach_norm(weights))
            gradient_norms = torch.stack(torch._foreach_norm(decayed))
            trust = group["trust_coefficient"] * weight_norms / gradient_norms
            trust = torch.where((weight_norms > 0) & (gradient_norms > 0), trust, 1)
            torch._foreach_mul_(decayed, list((lr * trust).unbind()))
        else:
            torch._foreach_mul_(decayed, lr)
        torch._foreach_mul_(velocities, group["momentum"])
        torch._foreach_add_(velocities, decayed)
        torch._foreach_sub_(weights, velocities)
