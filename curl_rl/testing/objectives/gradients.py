"""Checks of the loss's gradient: correct, correctly divided among processes, and only where it belongs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from curl_rl.encoders import Features
from curl_rl.objectives import Objective
from curl_rl.testing.failures import fail, require, where
from curl_rl.testing.objectives.case import Inputs, ObjectiveCase
from curl_rl.testing.objectives.finite_differences import gradient_kind

Gradients = list[list[Tensor | None]]
"""View by view, for the vector, the map and, if any, the middle; None where the loss does not depend on it."""


def parameters_learn(case: ObjectiveCase) -> None:
    """Every parameter is in one group of ``parameter_groups``, and the loss has a gradient for it."""
    objective = case.warm()
    grouped = [parameter for group in objective.parameter_groups() for parameter in group["params"]]
    names = {id(parameter): name for name, parameter in objective.named_parameters()}
    twice = sorted(names.get(id(p), "?") for i, p in enumerate(grouped) if any(p is other for other in grouped[:i]))
    require(not twice, f"parameter_groups has {', '.join(twice)} twice", "Keep it in one group.")
    left_out = sorted(names[key] for key in set(names) - set(map(id, grouped)))
    require(
        not left_out,
        f"parameter_groups leaves out {', '.join(left_out)}",
        "Add it to a group; tensors that must not learn belong in buffers (momentum_buffers for a slow head).",
    )
    strange = len(set(map(id, grouped)) - set(names))
    require(
        not strange, f"parameter_groups has {strange} parameters that are not the objective's", "List only its own."
    )
    case.nudge(objective)  # parameters at 0 can block the gradient of those before them
    objective(*case.encoded()).loss.backward()
    for name, parameter in objective.named_parameters():
        size = 0.0 if parameter.grad is None else parameter.grad.abs().sum()
        require(
            size > 1e-9,  # a bias that batch norm cancels has rounding errors
            f"the loss has no gradient for {name}",
            "Use it or remove it: batch norm and softmax cancel a bias that comes before them.",
        )


def gradient(case: ObjectiveCase) -> None:
    """The gradient agrees with finite differences, except for gradients that the method stops on purpose."""
    objective, inputs = case.warm(), case.inputs()
    read = [part is not None for view in _gradients(objective, inputs)[0] for part in view]
    values = _leaves(inputs.online)

    def loss(*free: Tensor) -> Tensor:
        moved = iter(free)
        parts = [next(moved) if is_read else value for value, is_read in zip(values, read, strict=True)]
        found: Tensor = objective(_rebuilt(inputs.online, parts), inputs.target, inputs.batch).loss
        return found

    kind = gradient_kind(loss, [value for value, is_read in zip(values, read, strict=True) if is_read])
    require(
        kind != "wrong",
        "the loss's gradient differs from finite differences",
        "Look for .data, in-place operations, and numbers taken out of tensors.",
    )
    require(
        case.stops_gradient or kind != "with stops",
        "the loss's gradient treats as constant something that depends on the online views (detach, or no_grad)",
        "Remove the stop; or pass stops_gradient=True if it is intended, as in SimSiam.",
    )
    require(
        not case.stops_gradient or kind == "with stops",
        "stops_gradient is True, but no gradient is stopped",
        "Omit stops_gradient.",
    )


def targets_get_no_gradient(case: ObjectiveCase) -> None:
    """No gradient flows into the target's features."""
    objective = case.warm()
    for spec, parts in zip(objective.target_views, _gradients(objective, case.inputs())[1], strict=True):
        require(
            all(part is None for part in parts),
            f"a gradient flows into the target's {spec}",
            "Detach the target's features with .detach(), or use them under torch.no_grad().",
        )


def views_are_read(case: ObjectiveCase) -> None:
    """A gradient flows into each of the online views."""
    objective = case.warm()
    for spec, parts in zip(objective.online_views, _gradients(objective, case.inputs())[0], strict=True):
        require(
            any(part is not None for part in parts),
            f"no gradient flows into the online {spec}",
            "Remove it from online_views, where it is encoded for nothing, or move it to target_views.",
        )


def reads_maps(case: ObjectiveCase) -> None:
    """``reads_maps`` is True exactly if the loss depends on ``Features.map`` or ``Features.middle``."""
    objective, inputs = case.warm(), case.inputs()
    if objective.reads_maps:
        require(
            any(part is not None for parts in _gradients(objective, inputs)[0] for part in parts[1:]),
            "reads_maps is True, but no gradient flows into a map or a middle",
            "Set reads_maps = False: processes then do not exchange the maps.",
        )
        return
    # As they arrive when several processes gather them.
    online, target = (
        [view._replace(map=view.map.new_empty(case.batch_size, 0), middle=None) for view in views]
        for views in inputs[:2]
    )
    try:
        without = objective(online, target, inputs.batch).loss
    except Exception as error:
        fail(f"reads_maps is False, but the loss reads the maps{where(error)}", "Set reads_maps = True.", error)
    require(
        torch.equal(objective(*inputs).loss, without),
        "reads_maps is False, but the loss depends on the maps",
        "Set reads_maps = True.",
    )


def shards(case: ObjectiveCase) -> None:
    """Processes with all features, but gradients only for their own shards, add up to the gradient of one process.

    A scale for each of vector, map and middle stands in for the shared network.
    """
    objective, inputs, size = case.warm(), case.inputs(), case.batch_size

    def of_scales(own: slice) -> Tensor:
        scales = torch.full((3,), 1.3, dtype=torch.float64, requires_grad=True)
        shown = []
        for view in inputs.online:
            gathered = [None if value is None else 1.3 * value for value in view]
            for whole, value, scale in zip(gathered, view, scales, strict=True):
                if whole is not None and value is not None:
                    whole[own] = value[own] * scale
            shown.append(Features(*gathered))  # type: ignore[arg-type]
        (found,) = torch.autograd.grad(objective(shown, inputs.target, inputs.batch).loss, scales)
        return found

    one = of_scales(slice(0, size))
    several = of_scales(slice(0, size // 2)) + of_scales(slice(size // 2, size))
    require(
        torch.allclose(one, several, rtol=1e-9, atol=1e-12),
        f"two processes get a gradient of {_numbers(several)} together, but one process {_numbers(one)}",
        "Treat all rows alike, whether or not they carry a gradient.",
    )


def _gradients(objective: Objective, inputs: Inputs) -> tuple[Gradients, Gradients]:
    """Gradients of the loss with respect to the online and the target views."""
    online, target = ([leaf.detach().requires_grad_() for leaf in _leaves(views)] for views in inputs[:2])
    loss = objective(_rebuilt(inputs.online, online), _rebuilt(inputs.target, target), inputs.batch).loss
    found: Iterator[Tensor | None] = iter(torch.autograd.grad(loss, [*online, *target], allow_unused=True))
    of_online, of_target = (
        [[next(found) for value in view if value is not None] for view in views] for views in inputs[:2]
    )
    return of_online, of_target


def _leaves(views: Sequence[Features]) -> list[Tensor]:
    """Every tensor of the features, in the order that :func:`_rebuilt` expects."""
    return [value for view in views for value in view if value is not None]


def _rebuilt(views: Sequence[Features], tensors: Sequence[Tensor]) -> list[Features]:
    """The same views with other tensors."""
    rest = iter(tensors)
    return [Features(*(None if value is None else next(rest) for value in view)) for view in views]  # type: ignore[arg-type]


def _numbers(values: Tensor) -> str:
    return ", ".join(f"{value:.6g}" for value in values.tolist())
