"""A policy by itself against the agent that it is from, and its file."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from curl_rl.artifacts.encoder_file import load_encoder
from curl_rl.encoders import EncoderConfig
from curl_rl.rl.agent import Agent, AgentConfig
from curl_rl.rl.config import EnvironmentConfig
from curl_rl.rl.policy_file import as_safetensors, load_policy
from curl_rl.rl.pretrained_policy import PretrainedPolicy, policy_of
from curl_rl.runs.errors import UserError
from helpers.tiny_reach import train_on_tiny_reach

SMALL = AgentConfig(crop=7, hidden=5, encoder=EncoderConfig(2, (2, 1), 4), log_std_min=-3.0, log_std_max=1.0)


def agent(**changes: Any) -> Agent:
    torch.manual_seed(0)
    made = Agent((6, 10, 10), 2, dataclasses.replace(SMALL, **changes))
    with torch.no_grad():  # a projection unlike the encoder's, and actions that are not near 0
        for parameter in (*made.actor_projection.parameters(), *made.actor.parameters()):
            parameter.add_(torch.randn_like(parameter))
    return made


def policy(made: Agent, **options: Any) -> PretrainedPolicy:
    environment = EnvironmentConfig(size=10, stack=2, action_repeat=4)
    return policy_of(made, environment, {"env": "tiny-reach"}, **options)


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pixels(*shape: int) -> Tensor:
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


def test_it_acts_as_the_agent_does() -> None:
    made = agent()
    own, seen, drawn = policy(made), pixels(5, 6, 10, 10), noise(5, 2)
    assert torch.equal(own(seen), made.act(seen))
    assert torch.equal(own(seen, noise=drawn), made.act(seen, drawn))
    assert torch.equal(own(seen, noise=torch.zeros(5, 2)), own(seen))
    assert own(seen).abs().max() <= 1
    assert (own.action_dim, own.observation_shape, own.stack, own.action_repeat) == (2, (6, 10, 10), 2, 4)


def test_it_takes_any_batch_shape_channels_last_and_floats() -> None:
    made = agent()
    own, seen = policy(made), pixels(3, 2, 6, 10, 10)
    expected = made.act(seen.flatten(0, 1)).view(3, 2, 2)
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(own(seen), expected, **close)
    torch.testing.assert_close(own(seen[0, 0]), expected[0, 0], **close)
    torch.testing.assert_close(own(seen.movedim(-3, -1)), expected, **close)
    torch.testing.assert_close(own(seen / 255), expected, **close)
    stacks = seen.view(3, 2, 2, 3, 10, 10)
    torch.testing.assert_close(policy(made, layout="SCHW", scale=1 / 255)(stacks.float()), expected, **close)


def test_it_is_a_copy_without_gradients_in_float32() -> None:
    made = agent(precision="bfloat16")
    own, seen = policy(made), pixels(2, 6, 10, 10)
    before = own(seen)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.zero_()
    assert torch.equal(own(seen), before)
    assert made.encoder.precision == "bfloat16"
    exact = agent()  # the same weights
    assert torch.equal(before, exact.act(seen))
    assert not any(parameter.requires_grad for parameter in own.parameters())
    assert not own.train().training


def test_noise_of_another_shape_is_refused() -> None:
    own = policy(agent())
    with pytest.raises(ValueError, match=r"^noise must have the shape of the actions, \(3, 2\), got \(2,\)$"):
        own(pixels(3, 6, 10, 10), noise=noise(2))


# ---- the file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "reach.safetensors"
    path.write_bytes(as_safetensors(policy(agent())))
    return path


def test_a_file_travels_alone(file: Path) -> None:
    loaded, made = load_policy(file), policy(agent())
    seen, drawn = pixels(4, 6, 10, 10), noise(4, 2)
    assert torch.equal(loaded(seen), made(seen))
    assert torch.equal(loaded(seen, noise=drawn), made(seen, noise=drawn))
    assert (loaded.observation_shape, loaded.stack, loaded.action_repeat) == ((6, 10, 10), 2, 4)
    assert loaded.provenance["env"] == "tiny-reach"


def test_a_file_can_be_read_without_this_package(file: Path) -> None:
    """The network written out from the description, as another reader would."""
    with safetensors.safe_open(file, "pt") as opened:
        about = json.loads(opened.metadata()["curl_rl"])
        w = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (safe_open is not a mapping)
    seen, drawn = pixels(4, 6, 10, 10), noise(4, 2)
    side, size = about["encoder"]["observation_shape"][-1], about["rendered_size"]
    edge = (size - side) // 2
    x = seen[:, :, edge : edge + side, edge : edge + side] / 255
    for number, stride in enumerate(about["encoder"]["config"]["strides"]):
        name = f"encoder.convolutions.layers.{number}"
        x = F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], stride).relu()
    x = F.linear(
        x.permute(0, 2, 3, 1).flatten(1), w["encoder.projection.linear.weight"], w["encoder.projection.linear.bias"]
    )
    x = F.layer_norm(x, x.shape[1:], w["encoder.projection.norm.weight"], w["encoder.projection.norm.bias"])
    for layer in (0, 2):
        x = F.linear(x, w[f"actor.trunk.{layer}.weight"], w[f"actor.trunk.{layer}.bias"]).relu()
    m, half = F.linear(x, w["actor.trunk.4.weight"], w["actor.trunk.4.bias"]).chunk(2, 1)
    low, high = about["actor"]["log_std_min"], about["actor"]["log_std_max"]
    s = low + (high - low) * (half.tanh() + 1) / 2
    own = policy(agent())
    torch.testing.assert_close(m.tanh(), own(seen), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close((m + s.exp() * drawn).tanh(), own(seen, noise=drawn), rtol=1e-4, atol=1e-5)
    assert about["action"]["size"] == 2
    assert about["action"]["range"] == [-1, 1]
    assert (about["stack"], about["action"]["repeat"]) == (2, 4)


def rewritten(file: Path, change: Any) -> None:
    with safetensors.safe_open(file, "pt") as opened:
        about = json.loads(opened.metadata()["curl_rl"])
        weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    change(about)
    safetensors.torch.save_file(weights, file, {"format": "pt", "curl_rl": json.dumps(about)})


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda about: about["actor"].update(hidden=7), r"actor\.trunk\.0\.bias must be \[7\], got \[5\]"),
        (lambda about: about["actor"].update(actions=-1), "actor.actions must be a positive integer, got -1"),
        (lambda about: about["actor"].update(features=9), "must be a PixelEncoder of 9 features"),
        (lambda about: about["action"].update(repeat=0), "action.repeat must be a positive integer, got 0"),
        (lambda about: about.update(stack="3"), "stack must be a positive integer, got '3'"),
        (lambda about: about.update(rendered_size=3), "rendered_size must be a side from 7"),
        (lambda about: about.update(format=99), "has format 99, newer than"),
    ],
)
def test_a_damaged_file_is_one_line(file: Path, change: Any, line: str) -> None:
    rewritten(file, change)
    with pytest.raises(UserError, match=line) as refused:
        load_policy(file)
    assert "\n" not in str(refused.value)


def test_encoders_and_policies_are_told_apart(file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds a policy, not an encoder; name what scripts/pretrain_vision.py, "):
        load_encoder(file)
    run = train_on_tiny_reach(tmp_path / "run", "--frames 24 --agent.precision float32")
    with pytest.raises(UserError, match="holds an encoder, not a policy"):
        load_policy(run / "encoder.safetensors")
    with pytest.raises(UserError, match=f"no policy in {tmp_path}: policy.safetensors is missing"):
        load_policy(tmp_path)
    loaded = load_policy(run)
    assert math.isfinite(loaded(pixels(9, 12, 12)).sum())
    assert loaded.provenance["frames"] == 24
