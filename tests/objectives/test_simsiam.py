"""SimSiam's loss written out, its stopped gradient, and the predictor's own learning rate."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from curl_rl.objectives import BatchInfo, Features, FeatureSpec, SimSiam, SimSiamConfig

SPEC = FeatureSpec(4, (2, 3, 3))


def features(vector: torch.Tensor) -> Features:
    return Features(vector, torch.zeros(len(vector), *SPEC.map_shape))


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def make() -> SimSiam:
    torch.manual_seed(0)
    return SimSiam(SPEC, SimSiamConfig(dim=8)).double()


def test_the_loss_is_half_of_both_negative_cosines() -> None:
    objective, views = make(), [draw(6, 4), draw(6, 4, seed=1)]
    z = [objective.projector(view) for view in views]
    p = [objective.predictor(x) for x in z]
    cosines = [(F.normalize(p[i]) * F.normalize(z[1 - i])).sum(1).mean().item() for i in range(2)]
    result = objective([features(view) for view in views], [], BatchInfo())
    assert result.loss.item() == pytest.approx(-sum(cosines) / 2, rel=1e-10)


def test_local_views_predict_both_global_ones_and_are_not_predicted() -> None:
    torch.manual_seed(0)
    objective = SimSiam(SPEC, SimSiamConfig(dim=8, local_views=1)).double()
    assert [spec.index for spec in objective.online_views] == [0, 1, 2]
    views = [draw(6, 4, seed=i) for i in range(3)]
    z = [objective.projector(view) for view in views]
    p = [objective.predictor(x) for x in z]
    pairs = ((0, 1), (1, 0), (2, 0), (2, 1))
    cosines = [(F.normalize(p[i]) * F.normalize(z[j])).sum(1).mean().item() for i, j in pairs]
    result = objective([features(view) for view in views], [], BatchInfo())
    assert result.loss.item() == pytest.approx(-sum(cosines) / 4, rel=1e-10)


def test_no_gradient_flows_into_the_targets() -> None:
    """Checked by finite differences of a loss whose targets are held fixed."""
    objective, views = make(), [draw(5, 4), draw(5, 4, seed=1)]
    fixed = [objective.projector(view).detach() for view in views]

    def loss_towards_fixed(*views: torch.Tensor) -> torch.Tensor:
        first, second = (objective.predictor(objective.projector(view)) for view in views)
        cosines = [F.cosine_similarity(first, fixed[1]).mean(), F.cosine_similarity(second, fixed[0]).mean()]
        return -torch.stack(cosines).mean()

    step = 1e-6
    inputs = [view.clone().requires_grad_() for view in views]
    loss = objective([features(view) for view in inputs], [], BatchInfo()).loss
    gradients = torch.autograd.grad(loss, inputs)
    for i in range(2):
        for place in range(4):
            moved = [view.clone() for view in views]
            moved[i][2, place] += step
            there = loss_towards_fixed(*moved).item()
            moved[i][2, place] -= 2 * step
            slope = (there - loss_towards_fixed(*moved).item()) / (2 * step)
            assert gradients[i][2, place].item() == pytest.approx(slope, rel=1e-5, abs=1e-9)


def test_only_the_predictors_learning_rate_stays_fixed() -> None:
    objective = make()
    projector, predictor = objective.parameter_groups()
    assert set(map(id, projector["params"])) == set(map(id, objective.projector.parameters()))
    assert set(map(id, predictor["params"])) == set(map(id, objective.predictor.parameters()))
    assert not projector.get("fixed_lr", False)
    assert predictor["fixed_lr"] is True
    optimizer = torch.optim.SGD(objective.parameter_groups(), lr=0.1)
    assert [group.get("fixed_lr", False) for group in optimizer.param_groups] == [False, True]


def test_it_needs_no_slow_copy() -> None:
    assert make().target_views == ()
    assert make().momentum(torch.tensor(0.5)) == 1
    assert list(make().buffers()) == []


@pytest.mark.parametrize(
    ("config", "projector", "predictor"),
    [
        (SimSiamConfig(), [(4, 4)] * 3, [(1, 4), (4, 1)]),
        (SimSiamConfig(projector_layers=2, dim=9), [(9, 4), (9, 9)], [(2, 9), (9, 2)]),
        (SimSiamConfig(projector_layers=1, dim=2), [(2, 4)], [(1, 2), (2, 1)]),
        (SimSiamConfig(dim=5, predictor_hidden=7), [(5, 4), (5, 5), (5, 5)], [(7, 5), (5, 7)]),
    ],
)
def test_the_heads_shapes_follow_the_options(
    config: SimSiamConfig, projector: list[tuple[int, int]], predictor: list[tuple[int, int]]
) -> None:
    objective = SimSiam(SPEC, config)
    for head, shapes in ((objective.projector, projector), (objective.predictor, predictor)):
        assert [tuple(w.shape) for w in head.parameters() if w.ndim == 2] == shapes
