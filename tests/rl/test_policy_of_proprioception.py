"""A policy of pixels and proprioception by itself, in its file and as a program, against the agent it is from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from curl_rl.artifacts.programs import write_program
from curl_rl.encoders import EncoderConfig
from curl_rl.rl.agent import Agent, AgentConfig
from curl_rl.rl.config import EnvironmentConfig
from curl_rl.rl.policy_file import as_safetensors, describe, load_policy
from curl_rl.rl.policy_program import policy_program
from curl_rl.rl.pretrained_policy import PretrainedPolicy, policy_of
from curl_rl.runs.errors import UserError

WIDTH = 3


@pytest.fixture(scope="module")
def agent() -> Agent:
    torch.manual_seed(0)
    config = AgentConfig(crop=7, hidden=5, encoder=EncoderConfig(2, (2, 1), 4))
    made = Agent((6, 10, 10), 2, config, proprioception=WIDTH)
    with torch.no_grad():  # actions that are not near 0
        for parameter in (*made.actor_projection.parameters(), *made.actor.parameters()):
            parameter.add_(torch.randn_like(parameter))
    return made


@pytest.fixture
def policy(agent: Agent) -> PretrainedPolicy:
    return policy_of(agent, EnvironmentConfig(size=10, stack=2, action_repeat=4), {"env": "tiny-reach"})


def inputs(batch: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels, vectors, noise."""
    generator = torch.Generator().manual_seed(batch)
    pixels = torch.randint(256, (batch, 6, 10, 10), dtype=torch.uint8, generator=generator)
    return pixels, torch.randn(batch, WIDTH, generator=generator), torch.randn(batch, 2, generator=generator)


def test_it_acts_as_the_agent_does_and_so_does_its_file(agent: Agent, policy: PretrainedPolicy, tmp_path: Path) -> None:
    (tmp_path / "policy.safetensors").write_bytes(as_safetensors(policy))
    pixels, vectors, noise = inputs(5)
    for own in (policy, load_policy(tmp_path / "policy.safetensors")):
        assert own.proprioception == WIDTH
        assert torch.equal(own(pixels, vectors), agent.act(pixels, proprioception=vectors))
        assert torch.equal(own(pixels, vectors, noise=noise), agent.act(pixels, noise, vectors))
        assert torch.allclose(own(pixels[0], vectors[0]), own(pixels, vectors)[0], atol=1e-6)
    assert describe(policy)["proprioception"]["size"] == WIDTH


def test_vectors_that_do_not_fit_are_refused(policy: PretrainedPolicy) -> None:
    pixels, vectors, _ = inputs(2)
    with pytest.raises(ValueError, match=r"^proprioception must be \(2, 3\), got none$"):
        policy(pixels)
    with pytest.raises(ValueError, match=r"^proprioception must be \(2, 3\), got \(2, 2\)$"):
        policy(pixels, vectors[:, :2])
    plain = Agent((6, 10, 10), 2, AgentConfig(crop=7, hidden=5, encoder=EncoderConfig(2, (2, 1), 4)))
    without = policy_of(plain, EnvironmentConfig(size=10, stack=2), {})
    assert "proprioception" not in describe(without)
    with pytest.raises(ValueError, match=r"^proprioception must be left out, got \(2, 3\)$"):
        without(pixels, vectors)


@pytest.mark.parametrize("size", [-1, "3", 2])
def test_a_file_with_another_size_is_damaged(policy: PretrainedPolicy, size: object, tmp_path: Path) -> None:
    content = as_safetensors(policy)
    said = json.dumps({"size": WIDTH}).encode()[:-1]
    header = content.replace(said.replace(b'"', b'\\"'), json.dumps({"size": size}).encode()[:-1].replace(b'"', b'\\"'))
    assert header != content
    length = int.from_bytes(content[:8], "little") + len(header) - len(content)
    (tmp_path / "policy.safetensors").write_bytes(length.to_bytes(8, "little") + header[8:])
    with pytest.raises(UserError):
        load_policy(tmp_path / "policy.safetensors")


@pytest.mark.parametrize("sampled", [False, True])
def test_its_program_takes_the_vectors_last(
    sampled: bool, agent: Agent, policy: PretrainedPolicy, tmp_path: Path
) -> None:
    program = policy_program(policy, sampled=sampled)
    assert write_program(program, tmp_path / "policy.pt2") <= 1e-4
    run = torch.export.load(tmp_path / "policy.pt2").module()
    for batch in (1, 4):
        pixels, vectors, noise = inputs(batch)
        actions = run(pixels, noise, vectors) if sampled else run(pixels, vectors)
        expected = agent.act(pixels, noise if sampled else None, vectors)
        torch.testing.assert_close(actions, expected, rtol=1e-4, atol=1e-4)
    specs = program.description["inputs"]
    assert [spec["name"] for spec in specs] == ["observation", *(["noise"] if sampled else []), "proprioception"]
    assert specs[-1]["shape"] == ["batch", WIDTH]
