"""Several methods at once: what each part alone gives, weighted and added up."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from curl_rl.objectives import (
    BYOL,
    CPC,
    METHODS,
    BatchInfo,
    BYOLConfig,
    Composite,
    CPCConfig,
    Curl,
    CurlConfig,
    DataSpec,
    Features,
    FeatureSpec,
    MoCo,
    MoCoConfig,
    Objective,
    ObjectiveUser,
    SimCLR,
    SimCLRConfig,
    SwAV,
    SwAVConfig,
    ViewSpec,
    build_objective,
)
from curl_rl.objectives.composite import build_composite, check_methods, methods_in
from curl_rl.testing import OBJECTIVE_CHECKS, check_objective
from helpers.random_tensors import draw

SPEC = FeatureSpec(4, (2, 3, 3))
WEIGHTS = (1.0, 0.1, 3.0)


def parts() -> dict[str, Objective]:
    """Views in common and of their own, actions, a queue and prototypes."""
    torch.manual_seed(0)
    settings = SwAVConfig(5, dim=3, frozen_steps=0, head_layers=1, target="slow", future=1, predictor=True)
    own: dict[str, Objective] = {
        "cpc": CPC(SPEC, CPCConfig(steps=2, actions=True), action_dim=2),
        "moco": MoCo(SPEC, MoCoConfig("v2", dim=3, queue=11)),
        "swav": SwAV(SPEC, settings),
    }
    return {name: part.double() for name, part in own.items()}


def views(specs: tuple[ViewSpec, ...], seed: int) -> dict[ViewSpec, Features]:
    return {
        spec: Features(draw(5, SPEC.dim, seed=10 * seed + place).requires_grad_(), torch.zeros(5, *SPEC.map_shape))
        for place, spec in enumerate(specs)
    }


def take_a_step(objective: Objective) -> None:
    """Moves what is trained, so that slow copies have something to follow."""
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter += 0.1 * parameter.requires_grad


def test_views_are_those_of_all_parts_each_once() -> None:
    composite = Composite(parts(), WEIGHTS)
    assert composite.online_views == (ViewSpec(0),)
    assert composite.target_views == (ViewSpec(1, 1), ViewSpec(2, 2), ViewSpec(1))
    assert composite.needs == {"actions"}
    assert composite.projected == {"parts.swav.prototypes"}


def test_loss_gradient_metrics_and_state_are_the_weighted_sum_of_the_parts() -> None:
    composite, alone = Composite(parts(), WEIGHTS), parts()
    actions = draw(5, 2, 2, seed=99)
    for step in range(2):  # the second with memory
        online, target = views(composite.online_views, 2 * step), views(composite.target_views, 2 * step + 1)
        result = composite(list(online.values()), list(target.values()), BatchInfo(actions=actions))
        vectors = [view.vector for view in online.values()]
        gradient = torch.autograd.grad(result.loss, [*vectors, *composite.parameters()])
        expected = [torch.zeros_like(vector) for vector in vectors]
        of_heads: list[Tensor] = []
        total = 0.0
        for (name, part), weight in zip(alone.items(), WEIGHTS, strict=True):
            own = [online[spec] for spec in part.online_views], [target[spec] for spec in part.target_views]
            single = part(*own, BatchInfo(actions=actions))
            total += weight * single.loss.item()
            assert torch.equal(result.metrics[f"{name}/loss"], single.loss.detach())
            for key, value in single.metrics.items():
                assert torch.equal(result.metrics[f"{name}/{key}"], value)
            found = torch.autograd.grad(single.loss, [*vectors, *part.parameters()], retain_graph=True)
            expected = [so_far + weight * more for so_far, more in zip(expected, found, strict=False)]
            of_heads += [weight * more for more in found[len(vectors) :]]
            take_a_step(part)
            part.after_step(single.carry, torch.tensor(0.9))
        assert result.loss.item() == pytest.approx(total, rel=1e-12)
        for ours, theirs in zip(gradient, [*expected, *of_heads], strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-14)
        take_a_step(composite)
        composite.after_step(result.carry, torch.tensor(0.9))
        states = {
            f"parts.{name}.{key}": value for name, part in alone.items() for key, value in part.state_dict().items()
        }
        assert states.keys() == composite.state_dict().keys()
        for key, value in composite.state_dict().items():
            assert torch.equal(value, states[key]), key


@pytest.mark.parametrize("check", OBJECTIVE_CHECKS)
def test_conformance(check: str) -> None:
    check_objective(Composite(parts(), WEIGHTS), SPEC, data=DataSpec(count=23, action_dim=2), checks=[check])


def test_one_with_weight_1_is_the_method_itself() -> None:
    for weights in (1, 1.0, (1.0,), [1]):
        assert type(build_composite("curl", weights, SPEC)) is Curl
    assert build_composite("none", (1.0, 2.0), SPEC) is None


def test_one_with_another_weight_keeps_its_metrics_names() -> None:
    curl = Curl(SPEC).double()
    weighted = build_composite("curl", 0.1, SPEC)
    assert isinstance(weighted, Composite)
    inputs = [[Features(draw(5, 4, seed=seed), torch.zeros(5, 2, 3, 3))] for seed in (0, 1)]
    ours, plain = weighted.double()(*inputs, BatchInfo()), curl(*inputs, BatchInfo())
    assert torch.allclose(ours.loss, 0.1 * plain.loss, rtol=1e-12)
    assert ours.metrics == plain.metrics


def test_the_slow_copy_follows_the_first_part_that_uses_it() -> None:
    own: dict[str, Objective] = {
        "simclr": SimCLR(SPEC, SimCLRConfig()),
        "byol": BYOL(SPEC, BYOLConfig(momentum=0.8)),
        "curl": Curl(SPEC, CurlConfig()),
    }
    assert Composite(own, (1, 1, 1)).momentum(torch.tensor(0.0)) == pytest.approx(0.8)
    with_mocos_schedule = Composite({"curl": Curl(SPEC), "moco": MoCo(SPEC, MoCoConfig("v3"))}, (1, 1))
    assert not with_mocos_schedule.momentum_ahead


def test_expressions_name_methods_in_order() -> None:
    assert methods_in("none") == ()
    assert methods_in("curl") == ("curl",)
    assert methods_in("curl+cpc+moco") == ("curl", "cpc", "moco")
    for names in ("none", *METHODS, "curl+cpc"):
        check_methods(USER, names)


USER = ObjectiveUser("agent.objective", "a replay", frozenset({"actions"}))
REFUSED = {
    "crul": r"agent\.objective must be curl or simclr or .* or none, got crul; did you mean curl\?",
    "None": r"agent\.objective must be .* or none, got None; did you mean none\?",
    "curl+cpcc": r"agent\.objective must be methods joined by \+, .* got curl\+cpcc: cpcc is none .*; .* mean cpc\?",
    "curl+": r"agent\.objective must be methods joined by \+, .* got curl\+: an empty name is none of curl, .*",
    "curl+none": r"agent\.objective must be methods joined by \+, .* got curl\+none: none is none of curl, .*",
    "curl+curl": r"agent\.objective must name each method once, got curl\+curl",
}


@pytest.mark.parametrize("names", REFUSED)
def test_other_expressions_are_refused_in_one_line(names: str) -> None:
    with pytest.raises(ValueError, match=rf"\A{REFUSED[names]}\Z"):
        check_methods(USER, names)


def test_a_part_that_relies_on_epochs_is_refused() -> None:
    clustered: Any = build_objective("deepcluster", SPEC, data=DataSpec(count=3000))
    with pytest.raises(
        ValueError, match=r"^objectives in a sum must do without epochs, got deepcluster: use it alone$"
    ):
        Composite({"curl": Curl(SPEC), "deepcluster": clustered}, (1, 1))
