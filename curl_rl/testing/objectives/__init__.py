"""The conformance test of objectives: a named check for every rule of :mod:`curl_rl.objectives.base`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch

from curl_rl.encoders import FeatureSpec
from curl_rl.objectives import DataSpec, Method, Objective
from curl_rl.testing.failures import run_checks
from curl_rl.testing.objectives import declared, forward, gradients, state
from curl_rl.testing.objectives.case import ObjectiveCase

OBJECTIVE_CHECKS: dict[str, Callable[[ObjectiveCase], None]] = {
    check.__name__: check
    for check in (
        declared.declarations,
        declared.needs,
        forward.result,
        forward.forward_is_pure,
        forward.no_host_sync,
        gradients.parameters_learn,
        gradients.gradient,
        gradients.targets_get_no_gradient,
        gradients.views_are_read,
        gradients.reads_maps,
        gradients.shards,
        forward.batch_order,
        forward.batch_dependent,
        forward.one_sample,
        forward.float32,
        declared.momentum,
        state.after_step,
        state.projected,
        state.between_epochs,
        state.state_is_saved,
        state.evaluation,
        declared.try_out,
    )
}
"""The checks by name, in the order in which they run: likely causes of other failures come first."""


def check_objective(
    objective: Objective | Method,
    features: FeatureSpec,
    *,
    data: DataSpec = DataSpec(count=23, classes=3, action_dim=2),  # noqa: B008 (frozen)
    config: Any = None,
    batch_size: int = 5,
    seed: int = 0,
    stops_gradient: bool = False,
    checks: Iterable[str] = tuple(OBJECTIVE_CHECKS),
) -> None:
    """Checks that a self-supervised method follows its interface, and reports what is wrong and how to fix it.

    It takes seconds for a small method, runs on the CPU in float64, and leaves the objective and all random generators
    unchanged. To run each check as a separate test::

        @pytest.mark.parametrize("check", OBJECTIVE_CHECKS)
        def test_my_method(check):
            check_objective(METHOD, FeatureSpec(6, (2, 3, 3)), checks=[check])

    Args:
        objective: the method's registry entry, or an objective that is already built.
        features: sizes of the features that it is built for, preferably small.
        data: sizes of the data, for methods that depend on them.
        config: settings, for a ``Method``; None for its defaults.
        batch_size: samples in a batch, at least 4, or more if the method needs more.
        seed: seed of the features, and of the weights if the objective is built here.
        stops_gradient: the method stops the gradient of something that depends on the online views, as SimSiam does.
            The gradient is then compared with that of the loss in which everything detached keeps its value.
        checks: names from :data:`OBJECTIVE_CHECKS`.

    Raises:
        CheckFailed: (an AssertionError) the first check that fails, with its finding and the remedy.
        ValueError: an argument is out of range, or building the method raised it.
    """
    if batch_size < 4:
        raise ValueError(f"batch_size must be at least 4, so that a batch can be split, got {batch_size}")
    if data.count is not None and data.count < batch_size:
        raise ValueError(f"data.count must be at least batch_size {batch_size}, got {data.count}")
    method = objective if isinstance(objective, Method) else None
    if method is None and config is not None:
        raise ValueError("config must be None for an objective that is already built: pass a Method to configure it")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(objective, Method):
            settings = objective.config() if config is None else config
            built = objective.objective.build(features, settings, data)
        elif isinstance(objective, Objective):
            built = copy.deepcopy(objective).cpu()
        else:
            raise ValueError(f"objective must be a Method or a built Objective, got {objective!r}")
        case = ObjectiveCase(built.double().train(), features, data, batch_size, seed, stops_gradient, method)
        run_checks(OBJECTIVE_CHECKS, checks, case, owner=lambda: type(built).__name__)
