"""What every objective keeps, so that all of its users can rely on it: one row here for each method."""

from __future__ import annotations

import copy

import pytest
import torch

from curl_rl.objectives import BatchInfo, Curl, Features, FeatureSpec, Objective, ObjectiveConfigs, build_objective

SPEC = FeatureSpec(6, (2, 3, 3))
METHODS = {"curl": Curl}


def views(objective: Objective, batch: int = 5) -> tuple[list[Features], list[Features]]:
    generator = torch.Generator().manual_seed(0)

    def features() -> Features:
        vector = torch.randn(batch, SPEC.dim, dtype=torch.float64, generator=generator)
        return Features(vector, torch.randn(batch, *SPEC.map_shape, dtype=torch.float64, generator=generator))

    return [features() for _ in objective.online_views], [features() for _ in objective.target_views]


@pytest.fixture(params=METHODS)
def objective(request: pytest.FixtureRequest) -> Objective:
    torch.manual_seed(0)
    built = build_objective(request.param, SPEC, ObjectiveConfigs())
    assert type(built) is METHODS[request.param]
    return built.double()


def test_none_is_no_objective() -> None:
    assert build_objective("none", SPEC, ObjectiveConfigs()) is None


def test_forward_is_pure(objective: Objective) -> None:
    online, target = views(objective)
    before = copy.deepcopy(objective.state_dict())
    random = torch.get_rng_state()
    first = objective(online, target, BatchInfo())
    second = objective(online, target, BatchInfo())
    assert torch.equal(first.loss, second.loss)
    assert torch.equal(torch.get_rng_state(), random)
    assert before.keys() == objective.state_dict().keys()
    for name, value in objective.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_result_is_a_scalar_loss_and_detached_scalar_metrics(objective: Objective) -> None:
    result = objective(*views(objective), BatchInfo())
    assert result.loss.shape == ()
    assert result.loss.requires_grad
    assert result.metrics
    for name, value in result.metrics.items():
        assert value.shape == (), name
        assert not value.requires_grad, name


def test_every_parameter_is_in_one_group_and_learns(objective: Objective) -> None:
    objective(*views(objective), BatchInfo()).loss.backward()
    grouped = [parameter for group in objective.parameter_groups() for parameter in group["params"]]
    assert len(grouped) == len(set(map(id, grouped)))
    assert set(map(id, grouped)) == {id(p) for p in objective.parameters() if p.requires_grad}
    for name, parameter in objective.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_momentum_is_a_share_at_any_progress(objective: Objective) -> None:
    for progress in (0.0, 0.5, 1.0):
        assert 0 <= objective.momentum(torch.tensor(progress)) <= 1


def test_state_survives_saving_and_loading(objective: Objective) -> None:
    result = objective(*views(objective), BatchInfo())
    objective.after_step(result.carry, torch.tensor(0.9))
    other = copy.deepcopy(objective)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(objective.state_dict())
    assert torch.equal(other(*views(objective), BatchInfo()).loss, objective(*views(objective), BatchInfo()).loss)
