"""BYOL's loss written out, the path of its gradient, and the movement of its slow projector."""

from __future__ import annotations

import copy

import pytest
import torch

from curl_rl.objectives import BYOL, BatchInfo, BYOLConfig, Features, FeatureSpec

SPEC = FeatureSpec(4, (2, 3, 3))


def features(vector: torch.Tensor) -> Features:
    return Features(vector, torch.zeros(len(vector), *SPEC.map_shape))


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def make() -> BYOL:
    torch.manual_seed(0)
    objective = BYOL(SPEC, BYOLConfig(hidden=16, dim=3)).double()
    with torch.no_grad():  # an optimizer step that the slow projector has not followed
        for parameter in objective.projector.parameters():
            parameter.add_(torch.randn_like(parameter))
    return objective


def test_the_loss_is_the_squared_distance_of_unit_vectors_in_both_directions() -> None:
    objective = make()
    online, target = [draw(6, 4, seed=i) for i in range(2)], [draw(6, 4, seed=i) for i in (2, 3)]
    total = 0.0
    for i in range(2):
        prediction = objective.predictor(objective.projector(online[i]))
        goal = objective.target_projector(target[1 - i])
        for q, z in zip(prediction, goal, strict=True):
            total += (q / q.norm() - z / z.norm()).square().sum().item() / 6
    result = objective([features(x) for x in online], [features(x) for x in target], BatchInfo())
    assert result.loss.item() == pytest.approx(total, rel=1e-10)


def test_local_views_predict_both_global_ones_and_are_not_predicted() -> None:
    torch.manual_seed(0)
    objective = BYOL(SPEC, BYOLConfig(hidden=16, dim=3, local_views=2)).double()
    assert [spec.index for spec in objective.online_views] == [0, 1, 2, 3]
    assert [spec.index for spec in objective.target_views] == [0, 1]
    online, target = [draw(6, 4, seed=i) for i in range(4)], [draw(6, 4, seed=i) for i in (7, 8)]
    q = [objective.predictor(objective.projector(view)) for view in online]
    z = [objective.target_projector(view) for view in target]
    distances = [
        (q[i] / q[i].norm(dim=1, keepdim=True) - z[j] / z[j].norm(dim=1, keepdim=True)).square().sum(1).mean().item()
        for i, j in ((0, 1), (1, 0), (2, 0), (2, 1), (3, 0), (3, 1))
    ]
    result = objective([features(x) for x in online], [features(x) for x in target], BatchInfo())
    assert result.loss.item() == pytest.approx(2 * sum(distances) / 6, rel=1e-10)


def test_a_perfect_prediction_costs_nothing() -> None:
    objective = make()
    objective.after_step(None, torch.tensor(0.0))
    objective.predictor = torch.nn.Identity()  # type: ignore[assignment]
    view = [features(draw(6, 4))] * 2
    assert objective(view, view, BatchInfo()).loss.item() == pytest.approx(0, abs=1e-12)


def test_the_slow_projector_follows_after_the_step() -> None:
    objective = make()
    expected = copy.deepcopy(dict(objective.target_projector.named_buffers()))
    for momentum in (0.9, 1.0, 0.25):
        with torch.no_grad():
            for parameter in objective.projector.parameters():
                parameter.add_(1)
        objective.after_step(None, torch.tensor(momentum, dtype=torch.float64))
        for name, parameter in objective.projector.named_parameters():
            expected[name] = momentum * expected[name] + (1 - momentum) * parameter.detach()
        for name, value in objective.target_projector.named_buffers():
            assert torch.allclose(value, expected[name], rtol=1e-12), name


def test_its_momentum_grows_from_0_996_to_1_by_a_cosine() -> None:
    objective = BYOL(SPEC)
    told = [objective.momentum(torch.tensor(progress, dtype=torch.float64)).item() for progress in (0, 0.5, 1)]
    assert told == pytest.approx([0.996, 0.998, 1.0], rel=1e-12)


def test_the_heads_follow_the_features_by_the_papers_proportion() -> None:
    objective = BYOL(FeatureSpec(6, (1, 1, 1)))
    for head, fan_in in ((objective.projector, 6), (objective.predictor, 256)):
        assert [tuple(w.shape) for w in head.parameters() if w.ndim == 2] == [(12, fan_in), (256, 12)]
