"""Exported policies, loaded with torch or onnxruntime alone and compared with the agent's actions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from curl_rl.artifacts.programs import Program, ProgramInput, largest_difference, write_program
from curl_rl.encoders import EncoderConfig
from curl_rl.rl.agent import Agent, AgentConfig
from curl_rl.rl.config import EnvironmentConfig
from curl_rl.rl.policy_program import policy_program
from curl_rl.rl.pretrained_policy import PretrainedPolicy, policy_of


@pytest.fixture(scope="module")
def agent() -> Agent:
    torch.manual_seed(0)
    made = Agent((6, 10, 10), 2, AgentConfig(crop=7, hidden=5, encoder=EncoderConfig(2, (2, 1), 4)))
    with torch.no_grad():
        for parameter in (*made.actor_projection.parameters(), *made.actor.parameters()):
            parameter.add_(torch.randn_like(parameter))
    return made


@pytest.fixture
def policy(agent: Agent) -> PretrainedPolicy:
    environment = EnvironmentConfig(size=10, stack=2, action_repeat=4)
    return policy_of(agent, environment, {"env": "tiny-reach"})


def exported(program: Program, path: Path) -> tuple[Any, dict[str, Any]]:
    """The program as torch alone loads it, and its description."""
    assert write_program(program, path) <= 1e-4
    said = {"curl_rl.json": ""}
    run = torch.export.load(path, extra_files=said).module()
    return run, json.loads(said["curl_rl.json"])


def in_onnxruntime(program: Program, path: Path) -> tuple[Any, dict[str, Any]]:
    """The same as onnxruntime runs it."""
    for name in ("onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    onnx = pytest.importorskip("onnx")
    import onnxruntime

    from curl_rl.integrations.onnx import write_onnx

    assert write_onnx(program, path) <= 1e-4
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]

    def run(*inputs: Tensor) -> Tensor:
        given = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
        return torch.from_numpy(session.run(["action"], given)[0])

    said = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    about = json.loads(said["curl_rl"])
    for one, spec in zip(session.get_inputs(), about["inputs"], strict=True):
        assert (one.name, one.shape) == (spec["name"], spec["shape"])
    return run, about


@pytest.mark.parametrize("load", [exported, in_onnxruntime])
@pytest.mark.parametrize(
    ("taken", "sampled"), [(ProgramInput(), False), (ProgramInput(12, "float32", "HWC"), True)], ids=["mean", "sampled"]
)
def test_the_file_returns_the_agents_actions(
    load: Any, taken: ProgramInput, sampled: bool, agent: Agent, policy: PretrainedPolicy, tmp_path: Path
) -> None:
    suffix = ".pt2" if load is exported else ".onnx"
    run, about = load(policy_program(policy, taken, sampled=sampled), tmp_path / f"policy{suffix}")
    side = taken.side or 10
    for batch in (1, 3, 11):
        seen = torch.randint(256, (batch, 6, side, side), dtype=torch.uint8)
        noise = torch.randn(batch, 2) if sampled else None
        given = seen if taken.dtype == "uint8" else seen.permute(0, 2, 3, 1) / 255
        actions = run(given, *([] if noise is None else [noise]))
        torch.testing.assert_close(actions, agent.act(seen, noise), rtol=1e-4, atol=1e-4)
    assert [spec["name"] for spec in about["inputs"]] == (["observation", "noise"] if sampled else ["observation"])
    shape = ["batch", 6, 10, 10] if taken.layout == "CHW" else ["batch", 12, 12, 6]
    observation = {"shape": shape, "dtype": taken.dtype, "range": [0, 255] if taken.dtype == "uint8" else [0, 1]}
    assert about["inputs"][0].items() >= observation.items()
    assert (
        about["output"].items()
        >= {"name": "action", "shape": ["batch", 2], "range": [-1, 1], "sampled": sampled}.items()
    )
    assert (about["kind"], about["stack"], about["action"]["repeat"]) == ("policy", 2, 4)
    assert about["provenance"]["env"] == "tiny-reach"


def test_a_wrong_program_is_named_after_the_policy(policy: PretrainedPolicy) -> None:
    program = policy_program(policy, sampled=True)
    with pytest.raises(
        RuntimeError, match=r"output, action, differs from the policy's by .* at batch size 1, more than"
    ):
        largest_difference(lambda seen, noise: program.module(seen, torch.zeros_like(noise)), program)


def test_an_input_smaller_than_the_crop_is_refused(policy: PretrainedPolicy) -> None:
    with pytest.raises(ValueError, match="^side must be at least 7, the size of the encoder's crop, got 5$"):
        policy_program(policy, ProgramInput(side=5))
