"""The agent's update: who learns from what, in which order, and what each mended defect changes.

That the whole update is right is shown by tests/rl/test_parity.py; here are the properties that it must keep.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from benchmarks.precision import update_without_steps
from curl_rl.encoders import EncoderConfig, PixelEncoder
from curl_rl.losses import effective_rank
from curl_rl.objectives import BatchInfo, Features, MoCoConfig, Objective, ObjectiveConfigs, Result, ViewSpec
from curl_rl.rl.agent import Agent, AgentConfig, UpdateInputs
from curl_rl.rl.replay import Batch

SHAPE, ACTIONS, BATCH = (6, 24, 24), 2, 5
SMALL = AgentConfig(
    batch_size=BATCH, crop=20, hidden=12, encoder=EncoderConfig(filters=3, strides=(2, 1), latent=4), actor_every=2
)


def make_agent(*, seed: int = 0, **changes: Any) -> Agent:
    torch.manual_seed(seed)
    return Agent(SHAPE, ACTIONS, dataclasses.replace(SMALL, **changes)).double()


def make_batch(seed: int = 0, future: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)

    def pixels() -> torch.Tensor:
        return torch.randint(0, 256, (BATCH, *SHAPE), dtype=torch.uint8, generator=generator)

    action = torch.rand(BATCH, ACTIONS, generator=generator, dtype=torch.float64) * 2 - 1
    reward = torch.randn(BATCH, 1, generator=generator, dtype=torch.float64)
    discount = torch.full((BATCH, 1), 0.9, dtype=torch.float64)
    return Batch(pixels(), action, reward, discount, pixels(), tuple(pixels() for _ in range(future)))


def make_inputs(agent: Agent, seed: int = 0) -> UpdateInputs:
    return agent.draw(make_batch(seed), torch.Generator().manual_seed(seed))


def changed(before: dict[str, torch.Tensor], agent: Agent) -> set[str]:
    """Which parts of the agent differ from what they were."""
    return {name.split(".")[0] for name, value in agent.state_dict().items() if not torch.equal(value, before[name])}


def snapshot(agent: Agent) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in agent.state_dict().items()}


def test_an_even_update_moves_everything_and_an_odd_one_critic_and_objective_only() -> None:
    agent = make_agent()
    with torch.no_grad():  # a copy that differs, or the targets would have nowhere to go in the first update
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
    """With critic and objective at rest, an update of the actor leaves the encoder where it is."""
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
        "mended": (("encoder", "objective"),),
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
    assert steps["mended"] == pytest.approx(1e-3, rel=1e-2)
    assert steps["released"] == pytest.approx(2e-3, rel=1e-2)


def test_a_joint_update_steps_the_encoder_once_on_the_sum_of_both_losses() -> None:
    """Against autograd on both losses written out from their definitions, with keys from before the targets' move."""
    agent = make_agent(update_rule="joint", actor_every=1000, critic_lr=3e-4, encoder_lr=1e-3)
    inputs = make_inputs(agent)
    reference = copy.deepcopy(agent)
    with torch.no_grad():
        policy = reference.actor(
            reference.actor_projection(reference.encoder.convolutions(inputs.next_observation)), inputs.next_noise
        )
        next_q = reference.target_critic(reference.target_encoder(inputs.next_observation), policy.action).min(0).values
        target = inputs.reward + inputs.discount * (next_q - reference.alpha * policy.log_prob)
    query = reference.encoder(inputs.observation)
    q = reference.critic(query, inputs.action)
    critic_loss = F.mse_loss(q[0], target) + F.mse_loss(q[1], target)
    key = reference.target_encoder(inputs.views[ViewSpec(1)])
    contrastive_loss = F.cross_entropy(query @ reference.objective.W @ key.T, torch.arange(BATCH))  # type: ignore
    (critic_loss + contrastive_loss).backward()
    agent.updates = 1  # nothing but critics and objective is due
    metrics = agent.update(inputs)
    assert torch.allclose(metrics["critic/loss"], critic_loss.detach(), rtol=1e-9)
    assert torch.allclose(metrics["objective/loss"], contrastive_loss.detach(), rtol=1e-9)
    for part, lr in (("encoder", 3e-4), ("critic", 3e-4), ("objective", 1e-3)):
        ours, theirs = getattr(agent, part), getattr(reference, part)
        for (name, new), old in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            step = lr * old.grad / (old.grad.abs() + 1e-8)  # Adam's first
            assert torch.allclose(new.detach(), old.detach() - step, rtol=1e-6, atol=1e-9), f"{part}.{name}"


def test_the_actor_of_a_joint_update_looks_at_the_encoder_before_its_step() -> None:
    agent = make_agent(update_rule="joint")
    inputs = make_inputs(agent)
    before, after = copy.deepcopy(agent), agent
    metrics = agent.update(inputs)
    policy = before.actor(before.actor_projection(before.encoder.convolutions(inputs.observation)), inputs.noise)
    q = after.critic(before.encoder(inputs.observation), policy.action).min(0).values
    expected = (before.alpha * policy.log_prob - q).mean()
    assert torch.allclose(metrics["actor/loss"], expected, rtol=1e-9)


@pytest.mark.parametrize(("update", "even", "odd"), [("exact", 5, 5), ("joint", 4, 4)])
@pytest.mark.parametrize("objective", ["curl", "none"])
def test_convolutions_are_passed_no_more_often_than_the_mathematics_asks(
    objective: Any, update: str, even: int, odd: int
) -> None:
    """Exact: the next observation twice, the observation before and after the critics' step, the key. Joint: one less.

    Without an objective there is no key, and the second pass over the observation is the actor's alone.
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


def trained_encoder(seed: int = 7) -> PixelEncoder:
    torch.manual_seed(seed)
    encoder = PixelEncoder((6, 20, 20), SMALL.encoder).double()
    with torch.no_grad():  # biases and norms that differ from those of every fresh encoder
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return encoder


@pytest.mark.parametrize("freeze", [False, True])
def test_an_agent_starts_from_an_encoder_in_all_its_parts(freeze: bool) -> None:
    agent, encoder = make_agent(objective="none" if freeze else "curl", freeze_encoder=freeze), trained_encoder()
    agent.start_from(encoder)
    view = make_inputs(agent).observation
    vector = encoder(view)
    for own in (agent.encoder, agent.target_encoder):
        assert torch.equal(own(view), vector)
    assert torch.equal(agent.actor_projection(agent.encoder.convolutions(view)), vector)
    # A copy: what trains here leaves the given one as it is.
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    agent.update(make_inputs(agent))
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert torch.equal(agent.encoder(view), vector) is freeze
    with pytest.raises(ValueError, match="this one has made 1 updates"):
        agent.start_from(encoder)


@pytest.mark.parametrize("rule", ["exact", "joint"])
def test_a_frozen_encoder_learns_nothing_and_the_rest_learns_what_its_features_teach(rule: Any) -> None:
    """Two updates against SAC written out on features that were computed beforehand, with torch's own Adam."""
    agent, encoder = make_agent(objective="none", freeze_encoder=True, update_rule=rule), trained_encoder()
    agent.start_from(encoder)
    reference = copy.deepcopy(agent)
    critic, target, actor, projection = (
        getattr(reference, name) for name in ("critic", "target_critic", "actor", "actor_projection")
    )
    log_alpha = reference.log_alpha
    of_critic = torch.optim.Adam(critic.parameters(), 1e-3)
    of_actor = torch.optim.Adam([*projection.parameters(), *actor.parameters()], 1e-3)
    of_alpha = torch.optim.Adam([log_alpha], 1e-4, betas=(0.5, 0.999))
    for number in range(2):
        inputs = make_inputs(agent, seed=number)
        agent.update(inputs)
        with torch.no_grad():
            (seen, seen_map, _), (then, then_map, _) = (
                encoder.encode(x) for x in (inputs.observation, inputs.next_observation)
            )
            policy = actor(projection(then_map), inputs.next_noise)
            value = target(then, policy.action).min(0).values - log_alpha.exp() * policy.log_prob
            goal = inputs.reward + inputs.discount * value
        of_critic.zero_grad()
        sum(F.mse_loss(q, goal) for q in critic(seen, inputs.action)).backward()
        of_critic.step()
        if number == 1:
            continue  # actor and targets move in every second update
        policy = actor(projection(seen_map), inputs.noise)
        of_actor.zero_grad()
        (log_alpha.detach().exp() * policy.log_prob - critic(seen, policy.action).min(0).values).mean().backward()
        of_actor.step()
        of_alpha.zero_grad()
        (log_alpha.exp() * (-policy.log_prob.detach() + ACTIONS)).mean().backward()
        of_alpha.step()
        with torch.no_grad():
            for slow, fast in zip(target.parameters(), critic.parameters(), strict=True):
                slow.copy_(0.99 * slow + 0.01 * fast)
    for (name, ours), theirs in zip(agent.named_parameters(), reference.parameters(), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-8, atol=1e-12), name
    for own in (agent.encoder, agent.target_encoder):
        assert all(torch.equal(value, encoder.state_dict()[name]) for name, value in own.state_dict().items())
    assert not torch.equal(agent.critic.weights[0], make_agent(objective="none").critic.weights[0])


@pytest.mark.parametrize("rule", ["exact", "joint"])
def test_a_frozen_encoder_is_passed_twice_and_never_backwards(rule: Any) -> None:
    agent = make_agent(objective="none", freeze_encoder=True, update_rule=rule)
    maps: list[torch.Tensor] = []
    agent.encoder.convolutions.register_forward_hook(lambda *call: maps.append(call[-1]))
    for seed in range(2):
        agent.update(make_inputs(agent, seed))
        assert len(maps) == 2 * (seed + 1)
    assert not any(feature_map.requires_grad for feature_map in maps)
    held = {
        id(p) for optimizer in agent.optimizers.values() for group in optimizer.param_groups for p in group["params"]
    }
    assert not held & {id(parameter) for parameter in agent.encoder.parameters()}


def test_a_frozen_agent_is_saved_and_goes_on_the_same() -> None:
    agent = make_agent(objective="none", freeze_encoder=True)
    agent.update(make_inputs(agent))
    other = make_agent(seed=5, objective="none", freeze_encoder=True)
    other.load_training_state(copy.deepcopy(agent.training_state()))
    for one in (agent, other):
        one.update(make_inputs(agent, seed=1))
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in agent.state_dict().items())


def test_terminal_transitions_do_not_look_at_the_next_state() -> None:
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


def test_every_optimizer_has_its_own_settings() -> None:
    agent = make_agent(
        actor_lr=1e-1, critic_lr=2e-1, encoder_lr=3e-1, temperature_lr=4e-1, actor_beta=0.1, critic_beta=0.2,
        temperature_beta=0.4,
    )  # fmt: skip
    settings = {name: optimizer.param_groups[0] for name, optimizer in agent.optimizers.items()}
    assert {name: (group["lr"], group["betas"]) for name, group in settings.items()} == {
        "actor": (1e-1, (0.1, 0.999)),
        "critic": (2e-1, (0.2, 0.999)),
        "objective0": (3e-1, (0.9, 0.999)),
        "temperature": (4e-1, (0.4, 0.999)),
    }


@pytest.mark.parametrize("rule", ["exact", "joint"])
def test_gradient_norms_are_those_of_what_the_optimizers_were_handed(rule: Any) -> None:
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
    agent = make_agent(update_rule="joint")  # which looks at the encoder before its step
    inputs = make_inputs(agent)
    expected = effective_rank(agent.encoder(inputs.observation).detach())
    assert agent.update(inputs, diagnose=True)["objective/effective_rank"].item() == pytest.approx(expected.item())


def test_metrics_are_detached_scalars() -> None:
    agent = make_agent()
    for name, value in agent.update(make_inputs(agent), diagnose=True).items():
        assert value.shape == (), name
        assert not value.requires_grad, name


def test_views_are_independent_crops_of_one_observation() -> None:
    agent = make_agent()
    position = torch.arange(24 * 24, dtype=torch.float64).reshape(1, 1, 24, 24).expand(400, 6, 24, 24)
    batch = Batch(position, torch.zeros(400, 2), torch.zeros(400, 1), torch.zeros(400, 1), position, ())
    inputs = agent.draw(batch, torch.Generator().manual_seed(0))
    corners = torch.stack([inputs.observation, inputs.next_observation, inputs.views[ViewSpec(1)]])[:, :, 0, 0, 0]
    agreement = [(corners[i] == corners[j]).double().mean().item() for i, j in ((0, 1), (0, 2), (1, 2))]
    # Two independent draws from 25 places agree once in 25 times.
    assert max(agreement) < 0.1
    assert min(agreement) > 0.01


@pytest.mark.parametrize("every_offset", [True, False])
def test_each_crop_is_a_window_of_its_own_moment(every_offset: bool) -> None:
    """Pixels tell moment, row and column; 300 draws reach each of the 5×5 places, or of the released code's 4×4."""
    agent = make_agent(every_crop_offset=every_offset)
    place = torch.arange(24 * 24, dtype=torch.float64).reshape(1, 1, 24, 24).expand(300, 6, 24, 24)
    batch = Batch(place, torch.zeros(300, 2), torch.zeros(300, 1), torch.zeros(300, 1), 1000 + place, ())
    inputs = agent.draw(batch, torch.Generator().manual_seed(0))
    for crops, moment in ((inputs.observation, 0), (inputs.next_observation, 1000), (inputs.views[ViewSpec(1)], 0)):
        assert crops.shape == (300, 6, 20, 20)
        first = crops[:, :, :1, :1] - moment
        assert torch.equal(crops - moment, first + place[:, :, :20, :20])
        top, left = first[:, 0, 0, 0] // 24, first[:, 0, 0, 0] % 24
        for offset in (top, left):
            assert set(offset.tolist()) == set(range(5 if every_offset else 4))


def test_a_view_of_the_future_comes_from_the_replays_future_observation() -> None:
    class Ahead(Objective):
        online_views = (ViewSpec(0),)
        target_views = (ViewSpec(1, future=3), ViewSpec(2))
        seen: list[torch.Tensor]

        def forward(self, online: list[Features], target: list[Features], batch: BatchInfo) -> Result:
            self.seen = [features.vector for features in target]
            return Result(online[0].vector.square().mean())

    agent = make_agent()
    agent.objective = Ahead()
    assert agent.future_offsets == (3,)
    batch = make_batch(future=1)
    inputs = agent.draw(batch, torch.Generator().manual_seed(0))
    windows = batch.future[0].unfold(2, 20, 1).unfold(3, 20, 1)
    for i in range(BATCH):
        places = [torch.equal(windows[i, :, y, x], inputs.views[ViewSpec(1, 3)][i]) for y in range(5) for x in range(5)]
        assert sum(places) == 1
    agent.updates = 1
    expected = [agent.target_encoder(inputs.views[spec]) for spec in Ahead.target_views]
    agent.update(inputs)
    for ours, theirs in zip(agent.objective.seen, expected, strict=True):
        assert torch.equal(ours, theirs)


def test_after_step_is_told_the_momentum_of_the_slow_encoder() -> None:
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


@pytest.mark.parametrize("update", ["exact", "joint"])
@pytest.mark.parametrize("objective", ["curl", "simclr", "moco", "byol", "simsiam", "barlow"])
def test_every_objective_trains_the_encoder_and_itself(objective: Any, update: Any) -> None:
    config = dataclasses.replace(SMALL, objective=objective, update_rule=update)
    torch.manual_seed(0)
    agent = Agent(SHAPE, ACTIONS, config, ObjectiveConfigs(moco=MoCoConfig(queue=11))).double()
    if update == "exact":
        agent.critic_optimizer.param_groups[0]["lr"] = 0.0  # what moves the encoder is the objective
    assert agent.objective is not None
    agent.update(make_inputs(agent))  # MoCo's queue is empty in the first
    before = snapshot(agent)
    metrics = agent.update(make_inputs(agent, seed=1)) | agent.update(make_inputs(agent, seed=2))
    for name, value in agent.state_dict().items():
        assert value.isfinite().all(), name
        if name.startswith(("encoder.", "objective.")):
            assert not torch.equal(value, before[name]), name
    assert all(value.isfinite() for value in metrics.values())


def test_acting_sees_the_centre_crop_and_is_deterministic_without_noise() -> None:
    agent = make_agent()
    observation = make_batch().observation
    framed = torch.zeros_like(observation)
    framed[..., 2:22, 2:22] = observation[..., 2:22, 2:22]
    assert torch.equal(agent.act(observation), agent.act(framed)), "what lies outside the centre does not matter"
    noise = torch.ones(BATCH, ACTIONS, dtype=torch.float64)
    assert (agent.act(observation, noise) > agent.act(observation)).all()
    features = agent.actor_projection(agent.encoder.convolutions(observation[..., 2:22, 2:22]))
    assert torch.equal(agent.act(observation, noise), agent.actor(features, noise).action)


def test_state_survives_saving_and_goes_on_the_same() -> None:
    agent, other = make_agent(), make_agent(seed=7)
    for seed in range(3):
        agent.update(make_inputs(agent, seed))
    other.load_training_state(copy.deepcopy(agent.training_state()))
    for seed in range(3, 6):
        inputs = make_inputs(agent, seed)
        ours, theirs = agent.update(inputs), other.update(inputs)
        assert ours.keys() == theirs.keys()
    for name, value in agent.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop": 25}, "agent.crop 25 is larger than the rendered frame of 24×24"),
        ({"crop": 5}, "too small for 2 convolutions"),
        ({"precision": "auto"}, "must be resolved"),
        ({"batch_size": 0}, "agent.batch_size must be at least 1, got 0"),
        ({"critic_lr": 0.0}, "agent.critic_lr must be positive"),
        ({"encoder_tau": 1.5}, r"agent.encoder_tau must lie in \[0, 1\], got 1.5"),
        ({"discount": float("nan")}, "agent.discount"),
        ({"actor_beta": 1.0}, "agent.actor_beta"),
        ({"log_std_min": 3.0}, "log_std_min"),
        ({"objective_optimizers": ()}, "objective_optimizers"),
        ({"freeze_encoder": True}, "leaves agent.objective curl nothing to train .*: add --agent.objective none"),
        ({"freeze_encoder": True, "objective": "none", "detach_encoder": True}, "agent.detach_encoder must be false"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_agent(**changes)


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


def to_gpu(inputs: UpdateInputs) -> UpdateInputs:
    views = {spec: view.cuda() for spec, view in inputs.views.items()}
    return UpdateInputs(*(views if isinstance(value, dict) else value.cuda() for value in inputs))


@pytest.mark.gpu
@needs_gpu
def test_a_gpu_learns_what_a_cpu_learns() -> None:
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
    batch = Batch(*(value if isinstance(value, tuple) else value.cuda() for value in make_batch()))
    generator = torch.Generator("cuda").manual_seed(0)
    for _ in range(2):  # the first updates allocate the optimizers' state and choose algorithms
        agent.update(agent.draw(batch, generator))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(2):
            agent.update(agent.draw(batch, generator))
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@needs_gpu
def test_a_state_saved_on_a_cpu_goes_on_on_a_gpu() -> None:
    agent, other = make_agent(), make_agent(seed=7).cuda()
    agent.update(make_inputs(agent))
    other.load_training_state(copy.deepcopy(agent.training_state()))
    inputs = make_inputs(agent, 1)
    assert other.update(to_gpu(inputs))["critic/loss"].item() == pytest.approx(
        agent.update(inputs)["critic/loss"].item()
    )
