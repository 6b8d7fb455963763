"""SwAV's codes and queue against the released algorithm on probabilities, frozen prototypes, and Proto-RL's form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from curl_rl.objectives import BatchInfo, Features, FeatureSpec, Result, SwAV, SwAVConfig, ViewSpec
from helpers.random_tensors import draw

SPEC = FeatureSpec(4, (2, 3, 3))
B, K = 6, 5


def features(vectors: list[Tensor]) -> list[Features]:
    return [Features(vector, torch.zeros(len(vector), *SPEC.map_shape)) for vector in vectors]


def make(**settings: Any) -> SwAV:
    torch.manual_seed(0)
    objective = SwAV(SPEC, SwAVConfig(**({"prototypes": K, "dim": 4, "frozen_steps": 0} | settings))).double()
    with torch.no_grad():  # of length 1 in double precision too
        objective.prototypes.copy_(nn.functional.normalize(objective.prototypes))
    return objective


def step(objective: SwAV, seed: int, momentum: float = 0.9) -> Result:
    """A step without an optimizer, on random features."""
    online = features([draw(B, 4, seed=10 * seed + view) for view in range(len(objective.online_views))])
    target = features([draw(B, 4, seed=10 * seed + 5 + view) for view in range(len(objective.target_views))])
    result: Result = objective(online, target, BatchInfo())
    objective.after_step(result.carry, torch.tensor(momentum, dtype=torch.float64))
    return result


def rows(values: Tensor) -> np.ndarray:
    array: np.ndarray = values.detach().numpy()
    return array / np.linalg.norm(array, axis=1, keepdims=True)


def balanced(scores: np.ndarray, epsilon: float) -> np.ndarray:
    """Three Sinkhorn iterations on probabilities."""
    plan = np.exp(scores / epsilon)
    for _ in range(3):
        plan /= plan.sum(0)
        plan /= plan.sum(1, keepdims=True)
    return plan


def cross_entropy(code: np.ndarray, scores: np.ndarray) -> float:
    probabilities = np.exp(scores / 0.1)
    probabilities /= probabilities.sum(1, keepdims=True)
    return float(-(code * np.log(probabilities)).sum(1).mean())


@pytest.mark.parametrize(("queue", "after"), [(0, 0), (13, 0), (13, 4), (6, 0)])
def test_the_loss_is_the_released_codes_with_its_queue(queue: int, after: int) -> None:
    """Two large views and a small one over five steps; past embeddings join the codes alone, once there are enough."""
    objective = make(local_views=1, queue=queue, queue_after=after)
    objective.head = nn.Identity()  # type: ignore[assignment]
    prototypes = rows(objective.prototypes)
    past: list[list[np.ndarray]] = [[], []]
    used = 0
    for seed in range(5):
        views = [rows(draw(B, 4, seed=10 * seed + view)) for view in range(3)]
        codes = []
        for view in range(2):
            scores = views[view] @ prototypes.T
            if queue and len(past[view]) * B >= queue and seed >= after:
                newest = np.concatenate(past[view])[-queue:]
                scores = np.concatenate([newest @ prototypes.T, scores])
                used += 1
            codes.append(balanced(scores, 0.05)[-B:])
            past[view].append(views[view])
        pairs = [(0, 1), (0, 2), (1, 0), (1, 2)]
        expected = np.mean([cross_entropy(codes[to], views[by] @ prototypes.T) for to, by in pairs])
        assert step(objective, seed).loss.item() == pytest.approx(expected, rel=1e-10)
    assert used == (0 if not queue else 2 * (5 - max(-(-queue // B), after)))


def test_prototypes_do_not_learn_while_frozen_and_keep_their_direction_under_weight_decay() -> None:
    objective = make(frozen_steps=3)
    start = objective.prototypes.detach().clone()
    optimizer = torch.optim.SGD(objective.parameters(), 0.5, momentum=0.9, weight_decay=0.1)
    drift = []
    for seed in range(5):
        online = features([draw(B, 4, seed=10 * seed + view) for view in range(2)])
        result = objective(online, [], BatchInfo())
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        objective.after_step(result.carry, torch.tensor(1.0))
        drift.append((objective.prototypes.detach() - start).abs().max().item())
        assert torch.allclose(objective.prototypes.detach().norm(dim=1), torch.ones(K, dtype=torch.float64))
    assert max(drift[:3]) < 1e-14
    assert min(drift[3:]) > 1e-3


def test_proto_rl_predicts_the_next_observations_slow_code_from_this_one() -> None:
    objective = make(target="slow", future=1, head_layers=1, predictor=True, hidden=7, epsilon=0.1)
    assert objective.online_views == (ViewSpec(0),)
    assert objective.target_views == (ViewSpec(1, future=1),)
    assert [type(part) for part in objective.modules() if isinstance(part, nn.BatchNorm1d)] == []
    (slow_layer,) = (layer for layer in objective.slow_head.modules() if isinstance(layer, nn.Linear))  # type: ignore[union-attr]
    with torch.no_grad():
        slow_layer.weight.add_(0.3)  # no longer the head
        slow_layer.bias.sub_(0.2)
    (layer,) = (layer for layer in objective.head.modules() if isinstance(layer, nn.Linear))
    inner, outer = (layer for layer in objective.predictor.modules() if isinstance(layer, nn.Linear))  # type: ignore[union-attr]
    now, later = draw(B, 4, seed=0), draw(B, 4, seed=1)
    prediction = (now @ layer.weight.T + layer.bias) @ inner.weight.T + inner.bias
    scores = rows(prediction.relu() @ outer.weight.T + outer.bias) @ rows(objective.prototypes).T
    code = balanced(rows(later @ slow_layer.weight.T + slow_layer.bias) @ rows(objective.prototypes).T, 0.1)
    result = objective(features([now]), features([later]), BatchInfo())
    assert result.loss.item() == pytest.approx(cross_entropy(code, scores), rel=1e-10)


def test_the_slow_head_follows_after_the_step() -> None:
    objective = make(target="slow")
    before = [value.clone() for value in objective.slow_head.buffers()]  # type: ignore[union-attr]
    with torch.no_grad():
        for parameter in objective.head.parameters():
            parameter.add_(1)
    step(objective, 0, momentum=0.75)
    for old, slow, value in zip(before, objective.slow_head.buffers(), objective.head.parameters(), strict=True):  # type: ignore[union-attr]
        assert torch.allclose(slow, 0.75 * old + 0.25 * value.detach())


now, small, soon = ViewSpec(0), ViewSpec(2), ViewSpec(1, future=2)


@pytest.mark.parametrize(
    ("settings", "online", "target"),
    [
        ({}, (now, ViewSpec(1)), ()),
        ({"local_views": 1}, (now, ViewSpec(1), small), ()),
        ({"future": 2}, (now, soon), ()),
        ({"target": "slow"}, (now, ViewSpec(1)), (now, ViewSpec(1))),
        ({"target": "slow", "future": 2, "local_views": 1}, (now, small), (soon,)),
    ],
)
def test_views_follow_from_the_settings(
    settings: dict[str, Any], online: tuple[ViewSpec, ...], target: tuple[ViewSpec, ...]
) -> None:
    objective = make(**settings)
    assert (objective.online_views, objective.target_views) == (online, target)
    assert step(objective, 0).loss.isfinite()


def test_a_queue_smaller_than_a_batch_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^objectives.swav.queue must be at least 6, the samples of one batch, got 5$"
    ):
        step(make(queue=5), 0)


def test_the_published_settings_are_the_defaults() -> None:
    """The released code's scripts for ImageNet."""
    objective = SwAV(FeatureSpec(2048, (1, 1, 1)))
    assert objective.prototypes.shape == (3000, 128)
    assert [tuple(w.shape) for w in objective.head.parameters() if w.ndim == 2] == [(2048, 2048), (128, 2048)]
    c = objective.config
    assert (c.temperature, c.epsilon, c.sinkhorn_iterations, c.frozen_steps) == (0.1, 0.05, 3, 313)
