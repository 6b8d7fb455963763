"""The paper's update: the flow of gradients, the order of steps, and the effect of each fixed defect.

tests/rl/test_parity.py tests the update as a whole; the tests here check its properties, and those of every update
rule.
"""

from __future__ import annotations

import ast
import copy
import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from benchmarks.precision import update_without_steps
from curl_rl.losses import effective_rank
from curl_rl.objectives import (
    BatchInfo,
    DIMConfig,
    Features,
    MoCoConfig,
    NNCLRConfig,
    Objective,
    ObjectiveConfigs,
    Result,
    SwAVConfig,
    ViewSpec,
)
from curl_rl.objectives.method import Method
from curl_rl.rl.agent import Agent, UpdateInputs
from curl_rl.rl.update import exact_update
from helpers.dummy_objectives import DUMMIES
from helpers.small_agent import (
    ACTIONS,
    BATCH,
    SHAPE,
    SMALL,
    changed,
    make_agent,
    make_batch,
    make_inputs,
    needs_gpu,
    snapshot,
    to_gpu,
)


def test_the_papers_update_fits_on_a_screen_and_has_no_options_of_the_other_rules() -> None:
    source = inspect.getsource(exact_update)
    function = ast.parse(source).body[0]
    assert isinstance(function, ast.FunctionDef)
    documentation, first = function.body[0], function.body[1]
    assert isinstance(documentation, ast.Expr)
    body = source.splitlines()[first.lineno - 1 :]
    assert len(source.splitlines()) <= 55
    assert len([line for line in body if line.strip() and not line.lstrip().startswith("#")]) <= 40
    read = {node.attr for node in ast.walk(function) if isinstance(node, ast.Attribute)}
    assert not read & {"freeze_encoder", "update_rule"}


def test_an_even_update_moves_everything_and_an_odd_one_critic_and_objective_only() -> None:
    agent = make_agent()
    with torch.no_grad():  # so that the targets differ and move in the first update
        for parameter in (*agent.target_encoder.parameters(), *agent.target_critic.parameters()):
            parameter.mul_(0.9)
    before = snapshot(agent)
    agent.update(make_inputs(agent))
    everything = {"encoder", "critic", "actor_projection", "actor", "log_alpha", "objective"}
    assert changed(before, agent) == everything | {"target_encoder", "target_critic"}
    before = snapshot(agent)
    agent.update(make_inputs(agent, seed=1))
    assert changed(before, agent) == {"encoder", "critic", "objective"}


def test_the_actors_loss_stops_at_the_shared_convolutions() -> None:
    """With critic and objective at rest, an update of the actor does not change the encoder."""
    agent = make_agent(objective="none")
    agent.critic_optimizer.param_groups[0]["lr"] = 0.0
    before = snapshot(agent)
    agent.update(make_inputs(agent))
    moved = changed(before, agent)
    assert {"actor", "actor_projection"} <= moved
    assert not {"encoder", "critic"} & moved


@pytest.mark.parametrize("detach", [False, True])
def test_a_detached_encoder_learns_its_projection_but_not_its_convolutions_from_the_critic(detach: bool) -> None:
    agent = make_agent(objective="none", detach_encoder=detach)
    before = snapshot(agent)
    agent.update(make_inputs(agent))
    moved = {name for name, value in agent.state_dict().items() if not torch.equal(value, before[name])}
    assert any(name.startswith("encoder.projection") for name in moved)
    assert any(name.startswith("encoder.convolutions") for name in moved) is not detach


def test_without_an_objective_the_rest_of_the_update_is_unchanged() -> None:
    with_objective, without = make_agent(), make_agent(objective="none")
    inputs = make_inputs(with_objective)
    first, second = with_objective.update(inputs), without.update(inputs)
    for name, value in second.items():
        assert torch.equal(first[name], value), name
    assert {name.split("/")[0] for name in first} - {name.split("/")[0] for name in second} == {"objective"}
    assert torch.equal(with_objective.critic.weights[0], without.critic.weights[0])


def test_the_objectives_gradient_is_that_of_the_definition() -> None:
    """The step of the objective against autograd on the loss written out from the paper."""
    agent = make_agent(target_every=1000, actor_every=1000)
    agent.updates = 1
    agent.critic_optimizer.param_groups[0]["lr"] = 0.0
    inputs = make_inputs(agent)
    reference = copy.deepcopy(agent)
    query = reference.encoder(inputs.observation)
    key = reference.target_encoder(inputs.views[ViewSpec(1)]).detach()
    loss = F.cross_entropy(query @ reference.objective.W @ key.T, torch.arange(BATCH))  # type: ignore[union-attr]
    loss.backward()
    metrics = agent.update(inputs)
    assert torch.allclose(metrics["objective/loss"], loss.detach(), rtol=1e-9)
    for (name, ours), theirs in zip(agent.encoder.named_parameters(), reference.encoder.parameters(), strict=True):
        assert theirs.grad is not None
        # The first step of Adam is the gradient's sign, times the learning rate.
        step = agent.config.encoder_lr * theirs.grad / (theirs.grad.abs() + 1e-8)
        assert torch.allclose(ours.detach(), theirs.detach() - step, rtol=1e-6, atol=1e-9), name


def test_two_optimizers_step_the_encoder_twice_on_one_gradient() -> None:
    """The released code's defect: Adam's first step is one learning rate long, so two Adams go twice as far."""
    steps = {}
    for name, optimizers in {
        "fixed": (("encoder", "objective"),),
        "released": (("encoder",), ("encoder", "objective")),
    }.items():
        agent = make_agent(objective_optimizers=optimizers, target_every=1000, actor_every=1000)
        agent.updates = 1
        agent.critic_optimizer.param_groups[0]["lr"] = 0.0
        before = snapshot(agent)
        agent.update(make_inputs(agent))
        weight = "encoder.projection.linear.weight"
        steps[name] = (agent.state_dict()[weight] - before[weight]).abs().median().item()
        w = "objective.W"
        assert (agent.state_dict()[w] - before[w]).abs().median().item() == pytest.approx(1e-3, rel=1e-2)
    assert steps["fixed"] == pytest.approx(1e-3, rel=1e-2)
    assert steps["released"] == pytest.approx(2e-3, rel=1e-2)


@pytest.mark.parametrize(("update", "even", "odd"), [("exact", 5, 5), ("joint", 4, 4)])
@pytest.mark.parametrize("objective", ["curl", "none"])
def test_convolutions_run_no_more_often_than_necessary(objective: Any, update: str, even: int, odd: int) -> None:
    """Exact: the next observation twice, the observation before and after the critics' step, the key. Joint: one fewer.

    Without an objective there is no key, and only the actor needs the second pass over the observation.
    """
    agent = make_agent(objective=objective, update_rule=update)
    passes = []
    for encoder in (agent.encoder, agent.target_encoder):
        encoder.convolutions.register_forward_hook(lambda *_: passes.append(1))
    counts = []
    for seed in range(2):
        passes.clear()
        agent.update(make_inputs(agent, seed))
        counts.append(len(passes))
    without_key = [even - 1, odd - 1 - (update == "exact")]
    assert counts == ([even, odd] if objective == "curl" else without_key)


def test_terminal_transitions_ignore_the_next_state() -> None:
    agent = make_agent()
    inputs = make_inputs(agent)._replace(discount=torch.zeros(BATCH, 1, dtype=torch.float64))
    other = inputs._replace(next_observation=255 - inputs.next_observation)
    losses = [copy.deepcopy(agent).update(x)["critic/loss"] for x in (inputs, other)]
    assert torch.equal(losses[0], losses[1])
    q = agent.critic(agent.encoder(inputs.observation), inputs.action)
    assert torch.allclose(losses[0], F.mse_loss(q[0], inputs.reward) + F.mse_loss(q[1], inputs.reward), rtol=1e-9)


def test_diagnosis_adds_metrics_and_changes_nothing() -> None:
    plain, diagnosed = make_agent(), make_agent()
    first = plain.update(make_inputs(plain))
    second = diagnosed.update(make_inputs(diagnosed), diagnose=True)
    assert second.keys() - first.keys() == {"objective/effective_rank"}
    for name, value in plain.state_dict().items():
        assert torch.equal(value, diagnosed.state_dict()[name]), name


@pytest.mark.parametrize("rule", ["exact", "joint"])
def test_gradient_norms_are_those_of_the_optimizers_gradients(rule: Any) -> None:
    agent = make_agent(update_rule=rule)
    metrics, handed = update_without_steps(agent, make_inputs(agent))
    names = {"critic/gradient_norm": ["critic"], "actor/gradient_norm": ["actor"]}
    if rule == "exact":
        names["objective/gradient_norm"] = ["objective0"]
    else:
        names["critic/gradient_norm"] += ["objective0"]  # one step of both
    for name, optimizers in names.items():
        squares = sum(grad.square().sum() for own in optimizers for grad in handed[own].values())
        assert metrics[name].item() == pytest.approx(float(squares) ** 0.5, rel=1e-12), name


def test_the_effective_rank_is_that_of_the_first_online_view() -> None:
    agent = make_agent(update_rule="joint")  # which uses the encoder before its step
    inputs = make_inputs(agent)
    expected = effective_rank(agent.encoder(inputs.observation).detach())
    assert agent.update(inputs, diagnose=True)["objective/effective_rank"].item() == pytest.approx(expected.item())


def test_metrics_are_detached_scalars() -> None:
    agent = make_agent()
    for name, value in agent.update(make_inputs(agent), diagnose=True).items():
        assert value.shape == (), name
        assert not value.requires_grad, name


def test_after_step_receives_the_momentum_of_the_slow_encoder() -> None:
    told = []

    class Listener(Objective):
        online_views = (ViewSpec(0),)

        def forward(self, online: list[Features], target: list[Features], batch: BatchInfo) -> Result:
            return Result(online[0].vector.square().mean(), carry="this step's")

        def after_step(self, carry: Any, momentum: torch.Tensor) -> None:
            told.append((carry, momentum.item()))

    agent = make_agent(encoder_tau=0.25)
    agent.objective = Listener()
    for seed in range(2):
        agent.update(make_inputs(agent, seed))
    assert told == [("this step's", 0.75), ("this step's", 1.0)]


@pytest.mark.parametrize("rule", ["exact", "joint"])
def test_the_objective_receives_the_actions_ahead(rule: Any, register: Callable[[Method], None]) -> None:
    """The objective's step against autograd on the loss written out."""
    register(DUMMIES["dynamics"])
    agent = make_agent(objective="dynamics", update_rule=rule, actor_every=1000, target_every=1000)
    assert agent.future_offsets == (1, 3)
    actions = torch.rand(BATCH, 3, ACTIONS, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) - 0.5
    batch = make_batch(future=2)._replace(actions_ahead=actions)
    inputs = agent.draw(batch, torch.Generator().manual_seed(0))
    agent.updates = 1
    if rule == "exact":
        agent.critic_optimizer.param_groups[0]["lr"] = 0.0  # or the critics would move the encoder first
    reference = copy.deepcopy(agent)
    one_ahead, three_ahead = (reference.target_encoder(inputs.views[ViewSpec(*which)]) for which in ((1, 1), (0, 3)))
    now, (by_one, by_three) = reference.encoder(inputs.observation), reference.objective.predictors  # type: ignore
    first, all_three = by_one(torch.cat([now, actions[:, 0]], 1)), by_three(torch.cat([now, actions.flatten(1)], 1))
    loss = (F.mse_loss(first, one_ahead) + F.mse_loss(all_three, three_ahead)) / 2
    loss.backward()
    metrics = agent.update(inputs)
    assert torch.allclose(metrics["objective/loss"], loss.detach(), rtol=1e-9)
    for ours, theirs in zip(agent.objective.parameters(), reference.objective.parameters(), strict=True):  # type: ignore
        step = agent.config.encoder_lr * theirs.grad / (theirs.grad.abs() + 1e-8)  # Adam's first
        assert torch.allclose(ours.detach(), theirs.detach() - step, rtol=1e-6, atol=1e-9)


def test_an_objective_without_future_views_receives_no_actions() -> None:
    given = []

    class Listener(Objective):
        online_views = (ViewSpec(0),)

        def forward(self, online: list[Features], target: list[Features], batch: BatchInfo) -> Result:
            given.append(batch)
            return Result(online[0].vector.square().mean())

    agent = make_agent()
    agent.objective = Listener()
    agent.update(make_inputs(agent))
    assert given == [BatchInfo()]


@pytest.mark.parametrize("update", ["exact", "joint"])
@pytest.mark.parametrize(
    "objective",
    [
        *("curl", "simclr", "moco", "byol", "simsiam", "barlow", "swav", "nnclr", "pair_margin", "triplet", "n_pair"),
        *("dim", "amdim", "cpc"),
    ],
)
def test_every_objective_trains_the_encoder_and_itself(objective: Any, update: Any) -> None:
    config = dataclasses.replace(SMALL, objective=objective, update_rule=update)
    torch.manual_seed(0)
    configs = ObjectiveConfigs(
        moco=MoCoConfig(queue=11),
        swav=SwAVConfig(prototypes=5, frozen_steps=0),
        nnclr=NNCLRConfig(queue=11),
        dim=DIMConfig(units=8),
    )
    agent = Agent(SHAPE, ACTIONS, config, configs).double()
    if update == "exact":
        agent.critic_optimizer.param_groups[0]["lr"] = 0.0  # so that only the objective moves the encoder
    assert agent.objective is not None
    agent.update(make_inputs(agent))  # MoCo's queue is empty in the first
    before = snapshot(agent)
    metrics = agent.update(make_inputs(agent, seed=1)) | agent.update(make_inputs(agent, seed=2))
    for name, value in agent.state_dict().items():
        assert value.isfinite().all(), name
        if name.startswith(("encoder.", "objective.")):
            assert not torch.equal(value, before[name]), name
    assert all(value.isfinite() for value in metrics.values())


@pytest.mark.parametrize("update", ["exact", "joint"])
@pytest.mark.parametrize("objective", ["swav", "dim"])
def test_an_objective_learns_from_the_next_observation(objective: Any, update: Any) -> None:
    """Proto-RL and ST-DIM, which predict it: the loss depends on it, and is independent of it without."""
    config = dataclasses.replace(SMALL, objective=objective, update_rule=update)
    losses = {}
    for future in (0, 1):
        settings = ObjectiveConfigs(
            swav=SwAVConfig(5, frozen_steps=0, head_layers=1, target="slow", future=future, predictor=True),
            dim=DIMConfig("info_nce", future=future, heads="linear"),
        )
        torch.manual_seed(0)
        agent = Agent(SHAPE, ACTIONS, config, settings).double()
        assert agent.future_offsets == (1,) * future
        batch = make_batch(future=future)
        for factor in (1, 0):
            moments = tuple(factor * later for later in batch.future)
            inputs = agent.draw(batch._replace(future=moments), torch.Generator().manual_seed(0))
            metrics = copy.deepcopy(agent).update(inputs)
            losses[future, factor] = metrics["objective/loss"].item()
    assert losses[0, 0] == losses[0, 1]
    assert abs(losses[1, 0] - losses[1, 1]) > 1e-3


def test_one_update_in_bfloat16_is_near_the_exact_one() -> None:
    exact = make_agent()
    rounded = Agent(SHAPE, ACTIONS, dataclasses.replace(SMALL, precision="bfloat16"))
    rounded.load_state_dict(exact.state_dict())
    inputs = make_inputs(exact)
    single = UpdateInputs(
        *(
            value if not isinstance(value, torch.Tensor) or value.dtype == torch.uint8 else value.float()
            for value in inputs
        )
    )
    fine, coarse = exact.update(inputs), rounded.update(single)
    for name, value in fine.items():
        assert coarse[name].item() == pytest.approx(value.item(), rel=0.1, abs=0.02), name


@pytest.mark.gpu
@needs_gpu
def test_updates_on_a_gpu_equal_those_on_a_cpu() -> None:
    on_cpu = make_agent()
    on_gpu = make_agent().cuda()
    for seed in range(4):
        inputs = make_inputs(on_cpu, seed)
        ours, theirs = on_gpu.update(to_gpu(inputs), diagnose=True), on_cpu.update(inputs, diagnose=True)
        for name, value in theirs.items():
            assert ours[name].item() == pytest.approx(value.item(), rel=1e-6, abs=1e-9), name
    for name, value in on_cpu.state_dict().items():
        assert torch.allclose(on_gpu.state_dict()[name].cpu(), value, rtol=1e-6, atol=1e-9), name


@pytest.mark.gpu
@needs_gpu
def test_an_update_on_a_gpu_never_waits_for_it() -> None:
    agent = make_agent().cuda()
    batch = make_batch()
    batch = batch._replace(**{k: v.cuda() for k, v in batch._asdict().items() if isinstance(v, torch.Tensor)})
    generator = torch.Generator("cuda").manual_seed(0)
    for _ in range(2):  # the first updates allocate the optimizers' state and choose algorithms
        agent.update(agent.draw(batch, generator))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(2):
            agent.update(agent.draw(batch, generator))
    finally:
        torch.cuda.set_sync_debug_mode("default")
