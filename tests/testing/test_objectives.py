"""Every objective check catches a class that breaks its rule, and reports the class, the finding and the remedy."""

from __future__ import annotations

import copy
import random
import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from curl_rl.encoders import FeatureSpec
from curl_rl.objectives import (
    METHODS,
    DataSpec,
    DeepClusterConfig,
    DIMConfig,
    Method,
    NNCLRConfig,
    Objective,
    PCLConfig,
    SimSiam,
    SimSiamConfig,
    SwAVConfig,
)
from curl_rl.testing import OBJECTIVE_CHECKS, CheckFailed, NoHostSync, check_objective
from helpers import wrong_objectives as wrong
from helpers.dummy_objectives import DUMMIES

SPEC = FeatureSpec(6, (2, 3, 3), streams=2)


def method(kind: type[Objective], config: Any = wrong.Settings) -> Method:
    return Method(kind.__name__, kind, config, "of these tests alone", "Breaks a promise.")


# Class, the first check that it fails, the finding, the remedy.
MUTANTS: list[tuple[type[Objective], str, str, str]] = [
    (wrong.NoViews, "declarations", "online_views is empty", "such as (ViewSpec(0), ViewSpec(1))"),
    (wrong.ViewsByNumber, "declarations", "its views are (0,) and", "Declare them as ViewSpecs"),
    (wrong.UnknownNeed, "declarations", "needs holds 'label'", "labels, indices, actions, epochs"),
    (wrong.ProjectsNothing, "declarations", "projected names prototypes, which is not", "are head.bias, head.weight"),
    (wrong.HiddenNeed, "needs", "it reads batch.labels (wrong_objectives.py, line", "Add 'labels' to needs"),
    (wrong.HiddenActions, "needs", "it reads batch.actions", "Add 'actions' to needs"),
    (wrong.Raises, "needs", "it raised KeyError: 'queue' (wrong_objectives.py, line", ""),
    (wrong.LossPerSample, "result", "the loss has shape (5,)", "Return a scalar"),
    (wrong.NoGradient, "result", "the loss has no gradient", "not under no_grad()"),
    (wrong.LogOfNegative, "result", "the loss of normal features is nan", "log"),
    (wrong.AttachedMetric, "result", "the metric error has a gradient", ".detach()"),
    (wrong.MetricAsNumber, "result", "the metric error is float", "scalar tensor"),
    (wrong.MetricNotANumber, "result", "the metric error is", "Leave out undefined metrics"),
    (wrong.CarriesTheGraph, "result", "carry holds a tensor with a gradient", ".detach()"),
    (wrong.EnqueuesInForward, "forward_is_pure", "forward changes newest", "Change state only in after_step"),
    (wrong.RemembersInAnAttribute, "forward_is_pure", "forward changes seen", "Change state only in after_step"),
    (wrong.GlobalGenerator, "forward_is_pure", "draws from a global random generator", "Draw nothing there"),
    (wrong.NumpysGenerator, "forward_is_pure", "draws from a global random generator", "Draw nothing there"),
    (wrong.WritesIntoItsInputs, "forward_is_pure", "forward writes into its inputs", "in-place"),
    (wrong.Dropout, "forward_is_pure", "gives a different loss in evaluation mode", "no dropout"),
    (wrong.HostSync, "no_host_sync", "_local_scalar_dense.default makes the host wait", "no .item()"),
    (wrong.HostSyncAfterTheStep, "no_host_sync", "(wrong_objectives.py, line", "`if` on a tensor"),
    (wrong.MasksByIndex, "no_host_sync", "with a mask gives a shape", "indexing with a mask"),
    (wrong.ForgetsAParameter, "parameters_learn", "leaves out head.bias", "Add it to a group"),
    (wrong.GroupsAParameterTwice, "parameters_learn", "has head.bias twice", "Keep it in one"),
    (wrong.GroupsAStranger, "parameters_learn", "has 1 parameters that are not", "List only its own"),
    (wrong.UnusedParameter, "parameters_learn", "no gradient for temperature", "Use it or remove it"),
    (wrong.WrongGradient, "gradient", "differs from finite differences", "Look for .data"),
    (wrong.StopsAGradient, "gradient", "treats as constant something", "pass stops_gradient=True"),
    (wrong.TeachesTheTarget, "targets_get_no_gradient", "the target's ViewSpec(index=1", "Detach the target"),
    (wrong.UnreadView, "views_are_read", "no gradient flows into the online ViewSpec(index=1", "Remove it from"),
    (wrong.ReadsMapsInSecret, "reads_maps", "the loss reads the maps (wrong_objectives.py", "reads_maps = True"),
    (wrong.LooksAtTheMapsSize, "reads_maps", "the loss depends on the maps", "reads_maps = True"),
    (wrong.SaysItReadsMaps, "reads_maps", "no gradient flows into a map", "reads_maps = False"),
    (wrong.OrderMatters, "batch_order", "with the batch in another order", "must not matter"),
    (wrong.MetricOfTheFirst, "batch_order", "the metric first is", "must not matter"),
    (wrong.DependsOnTheBatch, "batch_dependent", "is False, but a batch has a loss of", "batch_dependent = True"),
    (wrong.SaysItDependsOnTheBatch, "batch_dependent", "is True, but the loss of a batch", "batch_dependent = False"),
    (wrong.RefusesHalves, "batch_dependent", "part of the batch is refused: a batch must", "batch_dependent = True"),
    (wrong.StandardDeviationOfOne, "one_sample", "one sample has a loss of nan", "Raise a one-line ValueError"),
    (wrong.RefusesOneInTwoLines, "one_sample", r"refused with 'one sample is\nno batch'", "State in one line"),
    (wrong.OverflowsInFloat32, "float32", "the loss is inf in float32", "logsumexp"),
    (wrong.Float64, "float32", "the loss of float32 features is torch.float64", "with the type of the features"),
    (wrong.MomentumAsNumber, "momentum", "momentum is 0.99 at progress 0.0", "Return a scalar tensor in [0, 1]"),
    (wrong.MomentumAboveOne, "momentum", "momentum is 1.5 at progress 0.5", "Return a scalar tensor in [0, 1]"),
    (wrong.LearnsAfterTheStep, "after_step", "changes the parameter head.bias", "Leave it to the optimizer"),
    (wrong.CountsInAnAttribute, "after_step", "after_step changes count, which is not a buffer", "register_buffer"),
    (wrong.ForgetsToProject, "after_step", "projected names head.bias, which after_step does not", "Project it"),
    (wrong.ProjectsAgainAndAgain, "projected", "after_step moves head.bias again", "Projecting twice"),
    (wrong.StateIsNotSaved, "state_is_saved", "loaded its state_dict has a different loss", "register_buffer"),
    (wrong.UnsavedCounter, "state_is_saved", "taken the same steps differs in steps", "register_buffer"),
    (wrong.ClustersByTheGlobalGenerator, "between_epochs", "draw from a global random", "passed to between_epochs"),
    (wrong.ReturnsAVector, "between_epochs", "between_epochs returns tensor(", "Return finite, detached scalars"),
    (wrong.BanksInAnAttribute, "between_epochs", "changes list, which is not a buffer", "register_buffer"),
    (wrong.WantsAllForNothing, "between_epochs", "wants_all(0) is 'online', but", "Fill a buffer in remember"),
    (wrong.HidesThatItNeedsEpochs, "between_epochs", "needs does not declare epochs", "Declare it"),
    (wrong.BreaksInEvaluation, "evaluation", "an evaluation changes newest", "only in after_step"),
    (wrong.ReadsWhenTriedOut, "try_out", "refuses a batch of 5 on the meta device", "read no values"),
    (wrong.TriesOutAnything, "try_out", "accepts a batch of one sample", "super().try_out"),
]


@pytest.mark.parametrize(("kind", "check", "found", "remedy"), MUTANTS, ids=[row[0].__name__ for row in MUTANTS])
def test_a_broken_rule_is_caught_by_name(kind: type[Objective], check: str, found: str, remedy: str) -> None:
    with pytest.raises(CheckFailed) as error:
        check_objective(method(kind), SPEC)
    message = str(error.value)
    assert message.startswith(f"{kind.__name__}, check {check}: ")
    assert found in message
    assert remedy in message
    assert "\n" not in message
    assert message.endswith(".")


def test_every_check_has_something_to_catch() -> None:
    # Classes that break this one are impure too, and are caught for that.
    with pytest.raises(CheckFailed, match="check shards: two processes get a gradient of .* Treat all rows alike"):
        check_objective(method(wrong.ScalesEverySecondLoss), SPEC, checks=["shards"])
    assert {check for _, check, *_ in MUTANTS} | {"shards"} == set(OBJECTIVE_CHECKS)


@pytest.mark.parametrize("kind", [wrong.Sound, wrong.Contrast, wrong.Banked])
def test_the_sound_ones_pass(kind: type[Objective]) -> None:
    check_objective(method(kind), SPEC)


# Clusters for the few samples of the checks, all parameters learning from the first step, queues quick to copy.
SMALLER = {
    "deepcluster": DeepClusterConfig(clusters=5),
    "dim": DIMConfig(units=7),
    "nnclr": NNCLRConfig(queue=64),
    "pcl": PCLConfig(clusters=(3, 5), queue=64),
    "swav": SwAVConfig(prototypes=7, frozen_steps=0),
}


IMAGES = DataSpec(count=23, classes=3, action_dim=2)
PAIRS = replace(IMAGES, text=FeatureSpec(4, (4, 1, 3)))  # a text encoder beside that of images


@pytest.mark.parametrize("name", [*METHODS, *DUMMIES])
def test_our_methods_pass_with_their_default_settings(name: str) -> None:
    check_objective(
        (METHODS | DUMMIES)[name],
        SPEC,
        config=SMALLER.get(name),
        stops_gradient=name in ("simsiam", "swav"),
        data=PAIRS if name == "clip" else IMAGES,
    )


def test_a_stopped_gradient_is_compared_with_that_of_the_loss_that_holds_it_fixed() -> None:
    check_objective(method(wrong.StopsAGradient), SPEC, stops_gradient=True)
    with pytest.raises(CheckFailed, match=r"check gradient: stops_gradient is True, but no gradient is stopped"):
        check_objective(method(wrong.Sound), SPEC, stops_gradient=True)

    class WrongBesides(wrong.StopsAGradient, wrong.WrongGradient):
        pass

    with pytest.raises(CheckFailed, match="check gradient: the loss's gradient differs from finite"):
        check_objective(method(WrongBesides), SPEC, stops_gradient=True)


def test_settings_without_a_default_are_refused() -> None:
    @dataclass(frozen=True)
    class NoDefault:
        dim: int

    @dataclass
    class NotFrozen:
        dim: int = 4

    with pytest.raises(CheckFailed, match="NoDefault has no default for dim. Give every field a default"):
        check_objective(method(wrong.Sound, NoDefault), SPEC, config=NoDefault(4))
    with pytest.raises(CheckFailed, match="NotFrozen, are not a frozen dataclass. Decorate the class with @dataclass"):
        check_objective(method(wrong.Sound, NotFrozen), SPEC)


def test_the_checked_objective_and_the_random_generators_stay_unchanged() -> None:
    objective = SimSiam(SPEC, SimSiamConfig(dim=8)).eval()
    before = copy.deepcopy(objective.state_dict())
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    check_objective(objective, SPEC, stops_gradient=True)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[1:]
    assert not objective.training
    for name, value in objective.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, before[name])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 3}, "batch_size must be at least 4, so that a batch can be split, got 3"),
        ({"data": DataSpec(count=4)}, "data.count must be at least batch_size 5, got 4"),
        ({"checks": ["results"]}, "got 'results'; did you mean result?"),
        ({"objective": wrong.Sound}, "objective must be a Method or a built Objective, got <class"),
        (
            {"objective": wrong.Sound(SPEC), "config": wrong.Settings()},
            "config must be None for an objective that is already built",
        ),
    ],
)
def test_arguments_that_cannot_be_meant_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        check_objective(**({"objective": method(wrong.Sound), "features": SPEC} | arguments))


def test_one_check_alone_can_be_asked_for() -> None:
    check_objective(method(wrong.EnqueuesInForward), SPEC, checks=["momentum", "gradient"])


def test_operators_that_do_not_wait_are_allowed() -> None:
    with NoHostSync():
        x = torch.ones(3)
        x[torch.zeros(2, dtype=torch.int64)] = torch.where(x > 0, x, -x)[:2]
