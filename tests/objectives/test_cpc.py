"""CPC over time against its definition written out, and the cases in which it is CURL."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from curl_rl.objectives import (
    CPC,
    BatchInfo,
    CPCConfig,
    Curl,
    CurlConfig,
    DataSpec,
    Features,
    FeatureSpec,
    ObjectiveConfigs,
    ObjectiveUser,
    Result,
    ViewSpec,
    build_objective,
)
from curl_rl.rl.agent import Agent
from curl_rl.rl.replay import Replay, ReplayConfig
from helpers.random_tensors import draw
from helpers.small_agent import SMALL

SPEC = FeatureSpec(3, (2, 3, 3))
ACTIONS = 2


def make(*, start: bool = False, **settings: Any) -> CPC:
    """With other bilinear forms than those at the start, unless ``start`` is True."""
    torch.manual_seed(0)
    objective = CPC(SPEC, CPCConfig(**settings), action_dim=ACTIONS).double()
    if not start:
        objective.contrast.W.data = draw(*objective.contrast.W.shape, seed=7)
    return objective


def features(*views: Tensor) -> list[Features]:
    return [Features(view, torch.zeros(len(view), *SPEC.map_shape)) for view in views]


def loss_of(objective: CPC, context: Tensor, later: Tensor, actions: Tensor | None = None) -> Result:
    """``later`` is (K, B, D), for a slow target."""
    result: Result = objective(features(context), features(*later), BatchInfo(actions=actions))
    return result


def by_definition(context: Tensor, weights: Tensor, later: Tensor) -> float:
    """Equation 4 with the density ratio of equation 3, term by term; ``context`` is (K, B, D)."""
    losses = []
    for c, weight, z in zip(context.numpy(), weights.detach().numpy(), later.numpy(), strict=True):
        for i in range(len(c)):
            ratios = [math.exp(z[j] @ weight.T @ c[i]) for j in range(len(z))]
            losses.append(-math.log(ratios[i] / sum(ratios)))
    return float(np.mean(losses))


def test_the_loss_is_the_papers_mean_over_steps_and_contexts() -> None:
    objective = make(steps=2)
    context, later = draw(4, 3), draw(2, 4, 3, seed=1)
    expected = by_definition(context.expand(2, -1, -1), objective.contrast.W, later)
    assert loss_of(objective, context, later).loss.item() == pytest.approx(expected, rel=1e-10)


def test_actions_move_the_context_step_by_step() -> None:
    objective = make(steps=2, actions=True, hidden=5)
    context, later, actions = draw(4, 3), draw(2, 4, 3, seed=1), draw(4, 3, ACTIONS, seed=2)
    moved = []
    assert objective.transitions is not None
    for k, transition in enumerate(objective.transitions, start=1):
        (first, bias), (last, shift) = (part.values() for part in _linear_maps(transition))
        given = np.concatenate([context.numpy(), *(actions.numpy()[:, step] for step in range(k))], 1)
        hidden = np.maximum(given @ first.numpy().T + bias.numpy(), 0)
        moved.append(context.numpy() + hidden @ last.numpy().T + shift.numpy())
    expected = by_definition(torch.tensor(np.stack(moved)), objective.contrast.W, later)
    assert loss_of(objective, context, later, actions).loss.item() == pytest.approx(expected, rel=1e-10)
    beyond = torch.cat([actions[:, :2], 9 * actions[:, 2:]], 1)
    assert loss_of(objective, context, later, beyond).loss == loss_of(objective, context, later, actions).loss


def _linear_maps(network: torch.nn.Module) -> list[dict[str, Tensor]]:
    return [
        {name: value.detach() for name, value in part.named_parameters()}
        for part in network.modules()
        if isinstance(part, torch.nn.Linear)
    ]


@pytest.mark.parametrize("layer_norm", [False, True])
def test_one_step_starts_as_curl(layer_norm: bool) -> None:
    objective = make(start=True, steps=1, layer_norm=layer_norm)
    curl = Curl(SPEC, CurlConfig(layer_norm=layer_norm)).double()
    context, later = draw(5, 3), draw(1, 5, 3, seed=1)
    ours = loss_of(objective, context, later)
    theirs = curl(features(context), features(*later), BatchInfo())
    assert torch.allclose(ours.loss, theirs.loss, rtol=1e-12)
    for name, value in theirs.metrics.items():
        assert torch.allclose(ours.metrics[name], value), name


def test_without_weight_on_the_actions_it_does_not_depend_on_them() -> None:
    objective = make(steps=2, actions=True)
    context, later = draw(4, 3), draw(2, 4, 3, seed=1)
    with torch.no_grad():
        assert objective.transitions is not None
        for transition in objective.transitions:
            first = next(part for part in transition.modules() if isinstance(part, torch.nn.Linear))
            first.weight[:, SPEC.dim :] = 0
    losses = [loss_of(objective, context, later, draw(4, 2, ACTIONS, seed=seed)).loss for seed in (2, 3)]
    assert losses[0] == losses[1]
    with torch.no_grad():  # and if it leaves the context where it is, it is the form without actions
        for parameter in objective.transitions.parameters():
            parameter.zero_()
    free = make(steps=2)
    free.contrast.W.data = objective.contrast.W.data
    assert loss_of(objective, context, later, draw(4, 2, ACTIONS)).loss == loss_of(free, context, later).loss


def test_the_online_target_has_the_same_loss_and_learns_from_both_ends() -> None:
    slow, online = make(steps=2), make(steps=2, target="online")
    context, later = draw(4, 3).requires_grad_(), draw(2, 4, 3, seed=1).requires_grad_()
    both = online(features(context, *later), [], BatchInfo()).loss
    alone = loss_of(slow, context, later).loss
    assert torch.equal(both, alone)
    of_both, of_later = torch.autograd.grad(both, [context, later])
    (of_alone,) = torch.autograd.grad(alone, [context])
    assert torch.allclose(of_both, of_alone)
    assert all(step.abs().sum() > 0 for step in of_later)
    assert online.target_views == ()
    assert online.online_views == (ViewSpec(0), ViewSpec(1, 1), ViewSpec(2, 2))


def test_past_the_end_of_an_episode_its_last_observation_stays_and_actions_are_0() -> None:
    """In episodes of one step all pairs are of the last observation: three steps have the loss of one."""
    replay = Replay(ReplayConfig(10), (6, 20, 20), ACTIONS, stack=2, device="cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 3, 20, 20), dtype=np.uint8)
    for first, second in zip(pixels[::2], pixels[1::2], strict=True):
        replay.start_episode(np.concatenate([first, first]))
        replay.add([0.5, -1.0], 0.0, np.concatenate([first, second]), terminated=False, truncated=True)
    losses = []
    for steps in (1, 3):
        torch.manual_seed(0)
        configs = ObjectiveConfigs(cpc=CPCConfig(steps=steps))
        # The crop is the whole frame, so that all views of an observation are equal.
        agent = Agent((6, 20, 20), ACTIONS, dataclasses.replace(SMALL, objective="cpc"), configs)
        assert agent.future_offsets == tuple(range(1, steps + 1))
        batch = replay.sample(6, torch.Generator().manual_seed(1), discount=0.9, future=agent.future_offsets)
        assert batch.actions_ahead is not None
        assert batch.actions_ahead[:, 0].tolist() == [[0.5, -1.0]] * 6
        assert not batch.actions_ahead[:, 1:].any()
        losses.append(agent.update(agent.draw(batch, torch.Generator().manual_seed(2)))["objective/loss"])
    assert torch.allclose(losses[0], losses[1], rtol=1e-5)


def test_data_without_actions_are_refused_with_the_remedy() -> None:
    configs = ObjectiveConfigs(cpc=CPCConfig(actions=True))
    with pytest.raises(ValueError, match=r"^objectives\.cpc\.actions must be false for data without actions, got true"):
        build_objective("cpc", SPEC, configs)
    user = ObjectiveUser("method", "photos", frozenset({"indices"}))
    with pytest.raises(ValueError, match=r"^method cpc needs actions, which photos does not have: take objectives\."):
        build_objective("cpc", SPEC, configs, DataSpec(action_dim=2), user)
    assert build_objective("cpc", SPEC, user=user) is not None
