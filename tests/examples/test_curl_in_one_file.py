"""The program learns what the agent learns; so comparing their speed says something."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from curl_rl.encoders import EncoderConfig
from curl_rl.objectives import ViewSpec
from curl_rl.rl.agent import Agent, AgentConfig, UpdateInputs
from envs.tiny import SOLVED_RETURN
from examples import curl_in_one_file as example

CHANNELS, CROP, ACTIONS, FILTERS, LATENT, HIDDEN, BATCH = 6, 25, 2, 4, 8, 16, 7


def copied_into(plain: example.Agent, agent: Agent) -> None:
    """Gives the agent the plain agent's weights."""

    def encoder(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
        side = int((state["fc.weight"].shape[1] / FILTERS) ** 0.5)
        fc = state["fc.weight"].unflatten(1, (FILTERS, side, side)).permute(0, 2, 3, 1).flatten(1)
        renamed = {
            name.replace("convs", "convolutions.layers")
            .replace("fc", "projection.linear")
            .replace("ln", "projection.norm"): value
            for name, value in (state | {"fc.weight": fc}).items()
        }
        return {f"{prefix}.{name}": value for name, value in renamed.items()}

    def critic(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
        stacked = {}
        for depth, layer in enumerate((0, 2, 4)):
            stacked[f"{prefix}.weights.{depth}"] = torch.stack([state[f"q{q}.{layer}.weight"].T for q in (1, 2)])
            stacked[f"{prefix}.biases.{depth}"] = torch.stack([state[f"q{q}.{layer}.bias"] for q in (1, 2)])[:, None]
        return stacked

    state = encoder(plain.critic.encoder.state_dict(), "encoder")
    state |= encoder(plain.critic_target.encoder.state_dict(), "target_encoder")
    state |= critic(plain.critic.state_dict(), "critic") | critic(plain.critic_target.state_dict(), "target_critic")
    projection = encoder(plain.actor.encoder.state_dict(), "actor")
    state |= {
        name.replace("actor.projection", "actor_projection"): value
        for name, value in projection.items()
        if "projection" in name
    }
    state |= {f"actor.{name}": value for name, value in plain.actor.state_dict().items() if "trunk" in name}
    agent.load_state_dict(state | {"objective.W": plain.W.data, "log_alpha": plain.log_alpha.data})


@pytest.mark.parametrize("seed", [0, 1])
def test_losses_are_the_agents_for_several_updates(seed: int) -> None:
    torch.manual_seed(seed)
    plain = example.Agent(CHANNELS, CROP, ACTIONS, filters=FILTERS, latent=LATENT, hidden=HIDDEN)
    for module in (plain.actor, plain.critic, plain.critic_target):
        module.double()
    plain.W.data, plain.log_alpha.data = plain.W.data.double(), plain.log_alpha.data.double()
    config = AgentConfig(
        batch_size=BATCH, crop=CROP, hidden=HIDDEN, encoder=EncoderConfig(filters=FILTERS, latent=LATENT)
    )
    agent = Agent((CHANNELS, CROP, CROP), ACTIONS, config).double()
    copied_into(plain, agent)
    for step in range(5):
        pixels = [torch.randint(0, 256, (BATCH, CHANNELS, CROP, CROP), dtype=torch.uint8) for _ in range(3)]
        action, reward = torch.rand(BATCH, ACTIONS).double() * 2 - 1, torch.randn(BATCH, 1).double()
        discount = 0.99 * torch.randint(0, 2, (BATCH, 1)).double()
        torch.manual_seed(step)
        theirs = plain.update(
            example.Batch(pixels[0].double(), action, reward, discount, pixels[1].double(), pixels[2].double())
        )
        torch.manual_seed(step)
        noise = [torch.randn(BATCH, ACTIONS, dtype=torch.float64) for _ in range(2)]
        views = {ViewSpec(1): pixels[2]}
        ours = agent.update(UpdateInputs(pixels[0], action, reward, discount, pixels[1], views, *noise))
        for name, value in theirs.items():
            assert ours[name].item() == pytest.approx(value.item(), rel=1e-9), (step, name)


def test_the_replay_gives_back_what_was_stored() -> None:
    replay = example.Replay(4, (3, 6, 6), 1, torch.device("cpu"))
    for number in range(6):
        observation = np.full((3, 6, 6), number, np.uint8)
        replay.add(observation, np.array([number], np.float32), number, observation + 100, number == 5)
    batch = replay.sample(64, 4, 0.9, np.random.default_rng(0))
    number = batch.action[:, 0]
    assert set(number.tolist()) == {2.0, 3.0, 4.0, 5.0}
    assert torch.equal(batch.reward[:, 0], number)
    assert torch.equal(batch.observation, number[:, None, None, None].expand(-1, 3, 4, 4))
    assert torch.equal(batch.next_observation, batch.observation + 100)
    assert torch.equal(batch.discount[:, 0], torch.where(number == 5, 0.0, 0.9))


def test_crops_reach_every_place_and_differ_from_view_to_view() -> None:
    replay = example.Replay(1, (1, 6, 6), 1, torch.device("cpu"))
    observation = np.arange(36, dtype=np.uint8).reshape(1, 6, 6)
    replay.add(observation, np.zeros(1, np.float32), 0.0, observation, False)
    batch = replay.sample(500, 4, 0.9, np.random.default_rng(0))
    corners = [{int(c) for c in view[:, 0, 0, 0]} for view in (batch.observation, batch.next_observation, batch.key)]
    assert corners == [{6 * y + x for y in range(3) for x in range(3)}] * 3
    assert not torch.equal(batch.observation, batch.key)


def test_the_policy_without_noise_is_the_agents_and_sees_the_center() -> None:
    torch.manual_seed(0)
    plain = example.Agent(CHANNELS, CROP, ACTIONS, filters=FILTERS, latent=LATENT, hidden=HIDDEN)
    config = AgentConfig(
        batch_size=BATCH, crop=CROP, hidden=HIDDEN, encoder=EncoderConfig(filters=FILTERS, latent=LATENT)
    )
    agent = Agent((CHANNELS, CROP, CROP), ACTIONS, config)
    copied_into(plain, agent)
    observation = np.random.default_rng(0).integers(0, 256, (CHANNELS, 31, 31), dtype=np.uint8)
    expected = agent.act(torch.from_numpy(observation)[None])[0].numpy()
    assert plain.act(observation, sample=False) == pytest.approx(expected, abs=1e-5)
    noisy = [plain.act(observation, sample=True) for _ in range(2)]
    assert not np.array_equal(*noisy)


def test_the_program_says_how_it_learns() -> None:
    line = [sys.executable, example.__file__, "--steps", "250", "--random_steps", "230"]
    printed = subprocess.run(line, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [re.sub(r"-?\d+\.\d+", "x", row) for row in printed] == [
        "before: return x; a blind agent gets about 5, the best about 22",
        "  250 steps: return  x; critic/loss x, objective/loss x",
        "after: return x",
    ]


@pytest.mark.slow
def test_the_program_learns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["curl_in_one_file.py"])
    example.main()
    assert float(capsys.readouterr().out.rpartition(" ")[2]) > SOLVED_RETURN
