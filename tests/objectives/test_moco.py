"""MoCo against its algorithm written out step by step, and the order of things: keys, queue, slow head."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from curl_rl.losses import info_nce
from curl_rl.objectives import BatchInfo, Features, FeatureSpec, MoCo, MoCoConfig, Result

SPEC = FeatureSpec(3, (2, 3, 3))
STILL = torch.tensor(1.0)


def features(vector: torch.Tensor) -> Features:
    return Features(vector, torch.zeros(len(vector), *SPEC.map_shape))


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def make(version: Any = "v1", **options: Any) -> MoCo:
    torch.manual_seed(0)
    return MoCo(SPEC, MoCoConfig(version, **options)).double()


def transparent(**options: Any) -> MoCo:
    """A v1 whose heads return the features themselves."""
    objective = make("v1", dim=3, **options)
    for head in (objective.head, objective.key_head):
        state = {name: torch.eye(3) if name.endswith("weight") else torch.zeros(3) for name in head.state_dict()}
        head.load_state_dict(state)
    return objective


def contrast(objective: MoCo, query: torch.Tensor, key: torch.Tensor) -> Result:
    return objective([features(query)], [features(key)], BatchInfo())


def test_one_query_by_hand() -> None:
    objective = transparent(queue=5, temperature=0.5)
    kept = torch.tensor([[0, 2.0, 0], [0, 0, 1.0]], dtype=torch.float64)
    objective.after_step(contrast(objective, kept, kept).carry, STILL)
    query, key = torch.tensor([[3.0, 0, 0]]).double(), torch.tensor([[1.0, 1.0, 0]]).double()
    # The cosine is 1/√2 for the positive and 0 for both negatives; the three empty slots are not negatives.
    positive = math.exp(2 / math.sqrt(2))
    result = contrast(objective, query, key)
    assert result.loss.item() == pytest.approx(-math.log(positive / (positive + 2)), rel=1e-10)
    assert result.metrics["accuracy"] == 1
    assert contrast(objective, kept[:1], key).metrics["accuracy"] == 0, "the queue holds the query itself"


def test_an_empty_queue_makes_no_negatives() -> None:
    query = draw(4, 3).requires_grad_()
    result = contrast(make("v2", queue=9), query, draw(4, 3, seed=1))
    assert result.loss == 0
    assert torch.equal(torch.autograd.grad(result.loss, query)[0], torch.zeros_like(query))


def test_a_query_with_the_other_keys_in_the_queue_is_a_row_of_the_in_batch_loss() -> None:
    query, key = draw(6, 3), draw(6, 3, seed=1)
    rows = []
    for i in range(6):
        objective = transparent(queue=5, temperature=0.3)
        others = torch.cat([key[:i], key[i + 1 :]])
        objective.after_step(contrast(objective, others, others).carry, STILL)
        rows.append(contrast(objective, query[i : i + 1], key[i : i + 1]).loss)
    in_batch = info_nce(F.normalize(query) @ F.normalize(key).T / 0.3)
    assert torch.stack(rows).mean().item() == pytest.approx(in_batch.item(), rel=1e-10)


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_many_steps_are_the_algorithm_written_out(version: str, symmetric: bool) -> None:
    """The algorithm's slow head moves before the next keys are computed, ours after the step: the losses are equal."""
    objective = make(version, dim=2, queue=7, temperature=0.4, symmetric=symmetric)
    head, slow = copy.deepcopy(objective.head), copy.deepcopy(objective.head)
    queue: list[torch.Tensor] = []
    momenta = [0.9, 1.0, 0.5, 0.8, 0.7]
    for step, momentum in enumerate(momenta):
        views = [draw(3, 3, seed=2 * step), draw(3, 3, seed=2 * step + 1)]
        if step:
            for name, value in head.state_dict().items():
                slow.state_dict()[name].mul_(momenta[step - 1]).add_((1 - momenta[step - 1]) * value)
        directions = [(0, 1), (1, 0)] if symmetric else [(0, 1)]
        keys = {i: F.normalize(slow(views[i])).detach() for i in range(2)}
        total = 0.0
        for q, k in directions:
            for query, key in zip(F.normalize(head(views[q])).detach(), keys[k], strict=True):
                scores = [float(query @ key) / 0.4, *(float(query @ old) / 0.4 for old in queue)]
                total += (math.log(sum(map(math.exp, scores))) - scores[0]) / 3

        specs = objective.online_views, objective.target_views
        online, target = ([features(views[spec.index]) for spec in asked] for asked in specs)
        result = objective(online, target, BatchInfo())
        assert result.loss.item() == pytest.approx(total, rel=1e-9, abs=1e-12), step

        queue = [*queue, *(keys[spec.index][i] for spec in objective.target_views for i in range(3))][-7:]
        with torch.no_grad():  # an optimizer step
            for ours, theirs in zip(objective.head.parameters(), head.parameters(), strict=True):
                theirs.add_(0.3 * torch.randn(theirs.shape, dtype=torch.float64))
                ours.copy_(theirs)
        objective.after_step(result.carry, torch.tensor(momentum, dtype=torch.float64))


def test_this_steps_keys_are_never_among_their_own_negatives() -> None:
    objective = make("v2", dim=4, hidden=16, queue=8)
    for step in range(6):
        views = [features(draw(3, 3, seed=2 * step)), features(draw(3, 3, seed=2 * step + 1))]
        result = objective(views[:1], views[1:], BatchInfo())
        assert objective.queue is not None
        held = objective.queue.embeddings[objective.queue.valid]
        assert not any(torch.equal(key, old) for key in result.carry for old in held)
        objective.after_step(result.carry, STILL)
        held = objective.queue.embeddings
        assert all(any(torch.equal(key, old) for old in held) for key in result.carry)


def test_v3_is_both_directions_of_the_in_batch_loss_times_twice_the_temperature() -> None:
    objective = make("v3", dim=2, hidden=5, temperature=0.3)
    views = [draw(4, 3), draw(4, 3, seed=1)]
    queries = [F.normalize(objective.predictor(objective.head(view))).detach() for view in views]
    keys = [F.normalize(objective.head(view)).detach() for view in views]  # the slow head has not moved yet
    total = 0.0
    for query, key in ((queries[0], keys[1]), (queries[1], keys[0])):
        for i in range(4):
            scores = [float(query[i] @ key[j]) / 0.3 for j in range(4)]
            total += 2 * 0.3 * (math.log(sum(map(math.exp, scores))) - scores[i]) / 4
    given = [features(view) for view in views]
    assert objective(given, given, BatchInfo()).loss.item() == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize(
    ("version", "dim", "temperature", "momenta"),
    [("v1", 128, 0.07, (0.999, 0.999, 0.999)), ("v2", 128, 0.2, (0.999,) * 3), ("v3", 256, 1.0, (0.99, 0.995, 1.0))],
)
def test_each_version_is_as_published(version: Any, dim: int, temperature: float, momenta: tuple[float, ...]) -> None:
    objective = MoCo(FeatureSpec(3, (1, 1, 1)), MoCoConfig(version, queue=2))
    assert objective.head(torch.randn(2, 3)).shape == (2, dim)
    assert objective.temperature == temperature
    told = [objective.momentum(torch.tensor(progress)).item() for progress in (0.0, 0.5, 1.0)]
    assert told == pytest.approx(momenta)
    assert objective.batch_dependent is (version == "v3")
    assert (objective.queue is None) is (version == "v3")


def test_the_configuration_overrides_the_published_settings() -> None:
    objective = MoCo(SPEC, MoCoConfig("v3", dim=5, hidden=7, temperature=0.2, momentum=0.9))
    assert [tuple(w.shape) for w in objective.head.parameters() if w.ndim == 2] == [(7, 3), (5, 7)]
    assert objective.temperature == 0.2
    assert objective.momentum(torch.tensor(0.0)).item() == pytest.approx(0.9)


@pytest.mark.parametrize(("symmetric", "keys"), [(False, 4), (True, 8)])
def test_a_queue_smaller_than_the_batch_is_refused_in_forward(symmetric: bool, keys: int) -> None:
    message = rf"objectives.moco.queue must be at least {keys}, the keys of one batch, got {keys - 1}"
    for size, expected in ((keys, None), (keys - 1, message)):
        objective = make("v2", queue=size, symmetric=symmetric)
        online, target = ([features(draw(4, 3))] * len(v) for v in (objective.online_views, objective.target_views))
        if expected is None:
            objective.after_step(objective(online, target, BatchInfo()).carry, STILL)
        else:
            with pytest.raises(ValueError, match=expected):
                objective(online, target, BatchInfo())
