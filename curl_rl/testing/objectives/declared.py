"""Checks of the declarations of an objective: its views, needs, settings, momentum and trial run."""

from __future__ import annotations

import dataclasses
from typing import get_args

import torch
from torch import Tensor

from curl_rl.objectives import Need, ViewSpec
from curl_rl.runs.errors import one_line
from curl_rl.testing.failures import fail, require, where
from curl_rl.testing.objectives.case import ObjectiveCase


def declarations(case: ObjectiveCase) -> None:
    """Views, ``needs`` and ``projected`` have valid values, and every setting has a default."""
    objective, known = case.built, get_args(Need)
    online, target = getattr(objective, "online_views", ()), objective.target_views
    require(
        all(isinstance(spec, ViewSpec) for spec in (*online, *target)),
        f"its views are {online!r} and {target!r}",
        "Declare them as ViewSpecs, such as online_views = (ViewSpec(0), ViewSpec(1)).",
    )
    require(
        online,
        "online_views is empty",
        "Declare the views that the trained encoder encodes, such as (ViewSpec(0), ViewSpec(1)).",
    )
    unknown = sorted(set(objective.needs) - set(known))
    require(not unknown, f"needs holds {', '.join(map(repr, unknown))}", f"It may hold {', '.join(known)}.")
    parameters = {name for name, _ in objective.named_parameters()}
    strange = sorted(objective.projected - parameters)
    require(
        not strange,
        f"projected names {', '.join(strange)}, which is not a parameter",
        f"Its parameters are {', '.join(sorted(parameters)) or 'none'}.",
    )
    if case.method is not None:
        _settings(case.method.config)


def _settings(config: type) -> None:
    frozen = dataclasses.is_dataclass(config) and config.__dataclass_params__.frozen  # type: ignore[attr-defined]
    require(
        frozen,
        f"its settings, {config.__name__}, are not a frozen dataclass",
        "Decorate the class with @dataclass(frozen=True).",
    )
    missing = dataclasses.MISSING
    without = [f.name for f in dataclasses.fields(config) if f.default is missing and f.default_factory is missing]
    require(
        not without,
        f"{config.__name__} has no default for {', '.join(without)}",
        "Give every field a default: a command line sets only what differs.",
    )


def needs(case: ObjectiveCase) -> None:
    """It reads labels, indices, actions and hidden tokens only if ``needs`` declares them."""

    def epoch(without: Need | None) -> None:
        objective, inputs = case.fresh(), case.inputs()
        case.pass_over_all(objective)
        if without is not None:
            inputs = inputs._replace(batch=inputs.batch._replace(**{without: None}))
        objective.after_step(objective(*inputs).carry, torch.tensor(0.9))

    epoch(without=None)
    undeclared: tuple[Need, ...] = ("labels", "indices", "actions", "hidden")
    for need in undeclared:
        if need in case.built.needs:
            continue
        try:
            epoch(without=need)
        except Exception as error:
            fail(
                f"it reads batch.{need}{where(error)}, which needs does not declare",
                f"Add {need!r} to needs: users without {need} then refuse the method at the start.",
                error,
            )


def momentum(case: ObjectiveCase) -> None:
    """``momentum`` is a scalar tensor in [0, 1] at any progress."""
    for progress in (0.0, 0.5, 1.0):
        value = case.built.momentum(torch.tensor(progress))
        require(
            isinstance(value, Tensor) and value.shape == () and 0 <= value <= 1,
            f"momentum is {value} at progress {progress}",
            "Return a scalar tensor in [0, 1], such as torch.full_like(progress, 0.99).",
        )


def try_out(case: ObjectiveCase) -> None:
    """``try_out`` works on the meta device, and refuses a batch of one if a sample's loss depends on others."""
    objective = case.fresh().float().to("meta")
    try:
        objective.try_out(case.features, case.batch_size, case.data)
    except Exception as error:
        fail(
            f"try_out refuses a batch of {case.batch_size} on the meta device{where(error)}: {one_line(error)}",
            "Keep every tensor in a parameter or a buffer, make new ones on the features' device, and read no values: "
            "users try a method out before they allocate anything.",
            error,
        )
    if not objective.batch_dependent:
        return
    try:
        objective.try_out(case.features, 1, case.data)
    except ValueError as error:
        require_one_line(error)
    else:
        fail(
            "try_out accepts a batch of one sample, although batch_dependent is True",
            "Call super().try_out(...), which refuses it.",
        )


def require_one_line(error: ValueError) -> None:
    """Fails unless a batch of one sample is refused in one line."""
    require(
        str(error) and "\n" not in str(error),
        f"one sample is refused with {str(error)!r}",
        "State in one line what the batch must be.",
    )
