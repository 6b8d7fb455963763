"""The agent apart from its update: random draws, acting, starting from an encoder, saving, and refusals."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from curl_rl.objectives import BatchInfo, Features, Objective, Result, ViewSpec
from curl_rl.objectives.method import Method
from curl_rl.rl.replay import Batch
from helpers.dummy_objectives import DUMMIES
from helpers.small_agent import ACTIONS, BATCH, make_agent, make_batch, make_inputs, needs_gpu, to_gpu, trained_encoder


@pytest.mark.parametrize("freeze", [False, True])
def test_an_agent_starts_from_an_encoder_in_all_its_parts(freeze: bool) -> None:
    agent, encoder = make_agent(objective="none" if freeze else "curl", freeze_encoder=freeze), trained_encoder()
    agent.start_from(encoder)
    view = make_inputs(agent).observation
    vector = encoder(view)
    for own in (agent.encoder, agent.target_encoder):
        assert torch.equal(own(view), vector)
    assert torch.equal(agent.actor_projection(agent.encoder.convolutions(view)), vector)
    # A copy: training the agent does not change the given encoder.
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    agent.update(make_inputs(agent))
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert torch.equal(agent.encoder(view), vector) is freeze
    with pytest.raises(ValueError, match="before its first update, got 1 updates"):
        agent.start_from(encoder)


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


def test_views_are_independent_crops_of_one_observation() -> None:
    agent = make_agent()
    position = torch.arange(24 * 24, dtype=torch.float64).reshape(1, 1, 24, 24).expand(400, 6, 24, 24)
    batch = Batch(position, torch.zeros(400, 2), torch.zeros(400, 1), torch.zeros(400, 1), position, ())
    inputs = agent.draw(batch, torch.Generator().manual_seed(0))
    corners = torch.stack([inputs.observation, inputs.next_observation, inputs.views[ViewSpec(1)]])[:, :, 0, 0, 0]
    agreement = [(corners[i] == corners[j]).double().mean().item() for i, j in ((0, 1), (0, 2), (1, 2))]
    # Two independent draws from 25 places agree once in 25 times on average.
    assert max(agreement) < 0.1
    assert min(agreement) > 0.01


@pytest.mark.parametrize("every_offset", [True, False])
def test_each_crop_is_a_window_of_its_own_moment(every_offset: bool) -> None:
    """Pixels encode moment, row and column; 300 draws reach all 5×5 offsets, or the released code's 4×4."""
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


def test_acting_sees_the_center_crop_and_is_deterministic_without_noise() -> None:
    agent = make_agent()
    observation = make_batch().observation
    framed = torch.zeros_like(observation)
    framed[..., 2:22, 2:22] = observation[..., 2:22, 2:22]
    assert torch.equal(agent.act(observation), agent.act(framed)), "only the center matters"
    noise = torch.ones(BATCH, ACTIONS, dtype=torch.float64)
    assert (agent.act(observation, noise) > agent.act(observation)).all()
    features = agent.actor_projection(agent.encoder.convolutions(observation[..., 2:22, 2:22]))
    assert torch.equal(agent.act(observation, noise), agent.actor(features, noise).action)


def test_a_saved_state_trains_on_identically() -> None:
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
def test_invalid_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_agent(**changes)


@pytest.mark.parametrize(("objective", "needs"), [("labeled", "labels"), ("clustered", "epochs and indices")])
def test_an_objective_that_needs_data_a_replay_lacks_is_refused(
    objective: Any, needs: str, register: Callable[[Method], None]
) -> None:
    message = f"agent.objective {objective} needs {needs}, which a replay does not have: take simclr"
    register(DUMMIES[objective])
    with pytest.raises(ValueError, match=f"^{message}$"):
        make_agent(objective=objective)


def test_cmc_is_refused_in_one_line() -> None:
    message = r"^agent.objective cmc needs indices, which a replay does not have: take moco$"
    with pytest.raises(ValueError, match=message):
        make_agent(objective="cmc")


@pytest.mark.gpu
@needs_gpu
def test_a_state_saved_on_a_cpu_resumes_on_a_gpu() -> None:
    agent, other = make_agent(), make_agent(seed=7).cuda()
    agent.update(make_inputs(agent))
    other.load_training_state(copy.deepcopy(agent.training_state()))
    inputs = make_inputs(agent, 1)
    assert other.update(to_gpu(inputs))["critic/loss"].item() == pytest.approx(
        agent.update(inputs)["critic/loss"].item()
    )
