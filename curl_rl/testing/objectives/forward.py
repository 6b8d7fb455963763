"""Checks of the loss as a function of the batch: pure, finite, without host syncs, the same in every order."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from curl_rl.encoders import map_features
from curl_rl.runs.errors import one_line
from curl_rl.testing.failures import fail, require, where
from curl_rl.testing.host_sync import HostSync, NoHostSync
from curl_rl.testing.objectives.case import ObjectiveCase, changes, comparable, random_states, state_of, tensors_in
from curl_rl.testing.objectives.declared import require_one_line


def result(case: ObjectiveCase) -> None:
    """The loss is a finite scalar with gradient, metrics are finite scalars without, and ``carry`` holds no graph."""
    found = case.warm()(*case.encoded())
    loss = found.loss
    require(
        loss.shape == (), f"the loss has shape {tuple(loss.shape)}", "Return a scalar, such as the mean over the batch."
    )
    require(loss.requires_grad, "the loss has no gradient", "Compute it from the online features, not under no_grad().")
    require(loss.isfinite(), f"the loss of normal features is {loss.item()}", "Look for log, sqrt and division near 0.")
    for name, value in found.metrics.items():
        require(
            isinstance(value, Tensor) and value.shape == (),
            f"the metric {name} is {type(value).__name__} of shape {tuple(getattr(value, 'shape', ()))}",
            "Return each metric as a scalar tensor.",
        )
        require(not value.requires_grad, f"the metric {name} has a gradient", "Detach it with .detach().")
        require(value.isfinite(), f"the metric {name} is {value.item()}", "Leave out undefined metrics.")
    require(
        not any(value.requires_grad for value in tensors_in(found.carry)),
        "carry holds a tensor with a gradient, which keeps the memory of a whole step alive",
        "Use .detach() on what after_step needs.",
    )


def forward_is_pure(case: ObjectiveCase) -> None:
    """``forward`` changes no state or input, draws no random numbers, and gives the same loss in evaluation mode."""
    objective, inputs = case.warm(), case.inputs()
    before, given, random = state_of(objective), comparable(inputs), random_states()
    first = objective(*inputs).loss
    changed = changes(before, state_of(objective))
    require(
        not changed,
        f"forward changes {', '.join(changed)}",
        "Change state only in after_step, which gets what it needs as Result.carry.",
    )
    require(
        random == random_states(),
        "forward draws from a global random generator",
        "Draw nothing there: use everything instead of a sample, or a window that after_step moves.",
    )
    require(comparable(inputs) == given, "forward writes into its inputs", "Avoid in-place operations on them.")
    require(
        torch.equal(objective(*inputs).loss, first),
        "forward gives a different loss the second time",
        "Compute it only from the inputs, parameters and buffers.",
    )
    require(
        torch.equal(objective.eval()(*inputs).loss, first),
        "forward gives a different loss in evaluation mode",
        "Use no dropout, and batch norm without running statistics (curl_rl.encoders.heads.BatchNorm).",
    )


def no_host_sync(case: ObjectiveCase) -> None:
    """A step never makes the host wait for the device."""
    objective, inputs, progress = case.warm(), case.encoded(), torch.tensor(0.5)
    try:
        with NoHostSync():
            found = objective(*inputs)
            found.loss.backward()
            objective.after_step(found.carry, objective.momentum(progress))
    except HostSync as error:
        fail(
            f"{one_line(error)}{where(error)}",
            "Use no .item(), `if` on a tensor, indexing with a mask or torch.tensor(...) in a step; torch.where, "
            "torch.full and buffers do the same on the device.",
            error,
        )


def batch_order(case: ObjectiveCase) -> None:
    """The order of the samples in a batch does not matter."""
    objective, inputs = case.warm(), case.inputs()
    plain, shuffled = objective(*inputs), objective(*inputs.rows(case.permutation(case.batch_size)))
    remedy = "A sample's position in its batch must not matter: compare samples by their features, labels and indices."
    require(
        torch.allclose(plain.loss, shuffled.loss, rtol=1e-10),
        f"the loss is {plain.loss.item():.8g}, but {shuffled.loss.item():.8g} with the batch in another order",
        remedy,
    )
    for name, value in plain.metrics.items():
        require(
            torch.allclose(value, shuffled.metrics[name]),
            f"the metric {name} is {value.item():.8g}, but {shuffled.metrics[name].item():.8g} with the batch in "
            "another order",
            remedy,
        )


def batch_dependent(case: ObjectiveCase) -> None:
    """``batch_dependent`` is False exactly if a batch's loss is the mean of its samples' losses."""
    objective, inputs, size = case.warm(), case.inputs(), case.batch_size
    half = size // 2
    try:
        parts = [objective(*inputs.rows(torch.arange(*ends))).loss for ends in ((0, half), (half, size))]
    except ValueError as error:
        require(
            objective.batch_dependent,
            f"batch_dependent is False, but part of the batch is refused: {one_line(error)}",
            "Set batch_dependent = True.",
        )
        return
    whole, mean = objective(*inputs).loss, (half * parts[0] + (size - half) * parts[1]) / size
    adds_up = torch.allclose(whole, mean, rtol=1e-10)
    require(
        adds_up or objective.batch_dependent,
        f"batch_dependent is False, but a batch has a loss of {whole.item():.8g} and its two parts a mean loss of "
        f"{mean.item():.8g}",
        "Set batch_dependent = True.",
    )
    require(
        not (adds_up and objective.batch_dependent),
        "batch_dependent is True, but the loss of a batch is the mean over its parts",
        "Set batch_dependent = False: users may then accumulate the gradients of small batches.",
    )


def one_sample(case: ObjectiveCase) -> None:
    """A batch of one sample has a finite loss, or is refused in one line."""
    objective, one = case.warm(), case.inputs(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metrics that are undefined for one sample
            loss = objective(*one).loss
    except ValueError as error:
        require(
            objective.batch_dependent,
            f"one sample is refused ({one_line(error)}), although batch_dependent is False",
            "Set batch_dependent = True, or compute its loss.",
        )
        require_one_line(error)
        return
    require(
        loss.isfinite(),
        f"one sample has a loss of {loss.item()}",
        "Raise a one-line ValueError that asks for a larger batch_size.",
    )


def float32(case: ObjectiveCase) -> None:
    """The loss in float32 equals that in float64, up to rounding."""
    objective, inputs = case.warm(), case.inputs()
    exact = objective(*inputs).loss
    online, target = ([map_features(Tensor.float, view) for view in views] for views in inputs[:2])
    rounded = objective.float()(online, target, inputs.batch).loss
    require(
        rounded.dtype == torch.float32,
        f"the loss of float32 features is {rounded.dtype}",
        "Make new tensors with the type of the features.",
    )
    require(
        math.isclose(rounded.item(), exact.item(), rel_tol=1e-4, abs_tol=1e-6),
        f"the loss is {rounded.item():.8g} in float32 and {exact.item():.8g} in float64",
        "Use logsumexp and log_softmax, and add a small number before log, sqrt and division.",
    )
