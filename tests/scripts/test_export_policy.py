"""The command, as a user calls it; the exported files are tested with the library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from curl_rl.rl.loading import load_agent
from curl_rl.rl.policy_file import load_policy
from helpers.tiny_reach import train_on_tiny_reach


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_on_tiny_reach(tmp_path_factory.mktemp("runs") / "run", "--frames 40")


def noise(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_safetensors_act_as_the_runs_newest_checkpoint(
    command: Any, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "reach.safetensors"
    assert command(run, "--format", "safetensors", "--output", output) == 0
    assert capsys.readouterr().out == f"{output}: actions of size 2, weights and description\n"
    seen, (agent, _, frames) = noise(3, 9, 12, 12), load_agent(run, "cpu")
    policy = load_policy(output)
    assert torch.equal(policy(seen), agent.act(seen))
    about = {"env": "tiny-reach", "preset": "cpu", "seed": 4, "frames": frames}
    assert policy.provenance.items() >= about.items()
    assert [path.name for path in output.parent.iterdir()] == ["reach.safetensors"]
    # A file is exported like a run.
    assert command(output, "--format", "safetensors", "--output", tmp_path / "again.safetensors") == 0
    again = load_policy(tmp_path / "again.safetensors")
    assert torch.equal(again(seen), policy(seen))
    assert again.provenance == policy.provenance


def test_exported_reports_its_inputs(
    command: Any, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "policy.pt2"
    assert command(run, "--format", "exported", "--output", output, "--sampled", "--layout", "HWC") == 0
    said = capsys.readouterr().out
    takes = "uint8 (batch, 12, 12, 9) and float32 (batch, 2) to float32 (batch, 2)"
    assert said.startswith(f"{output}: {takes}; at most ")
    assert said.endswith(" from the policy's action on noise\n")
    seen, drawn = noise(4, 12, 12, 9), torch.randn(4, 2, generator=torch.Generator().manual_seed(2))
    found = torch.export.load(output).module()(seen, drawn)
    agent, _, _ = load_agent(run, "cpu")
    torch.testing.assert_close(found, agent.act(seen.permute(0, 3, 1, 2), drawn), rtol=1e-4, atol=1e-4)


def test_onnx_is_written(command: Any, run: Path, tmp_path: Path) -> None:
    for name in ("onnx", "onnxscript"):
        pytest.importorskip(name)
    onnxruntime = pytest.importorskip("onnxruntime")
    output = tmp_path / "policy.onnx"
    assert command(run, "--format", "onnx", "--output", output) == 0
    seen = noise(4, 9, 12, 12)
    (found,) = onnxruntime.InferenceSession(output).run(None, {"observation": seen.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), load_agent(run, "cpu")[0].act(seen), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["absent", "--format", "onnx", "--output", "a.onnx"], "no policy in absent: policy.safetensors is missing"),
        (
            ["RUN/encoder.safetensors", "--format", "onnx", "--output", "a.onnx"],
            "RUN/encoder.safetensors holds an encoder, not a policy",
        ),
        (["RUN", "--format", "exported", "--output", "a.pt2", "--size", "9"], "side must be at least 10, the size of"),
        (
            ["RUN", "--format", "safetensors", "--output", "a.safetensors", "--sampled"],
            "--sampled does not apply to --format safetensors, which holds no program: leave it out",
        ),
        (["RUN", "--format", "onnx", "--output", "a.pt2"], "--output a.pt2 must end in .onnx for --format onnx"),
    ],
)
def test_a_mistake_is_one_line_and_code_2(
    command: Any,
    run: Path,
    arguments: list[str],
    line: str,
    capsys: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(*(argument.replace("RUN", str(run)) for argument in arguments)) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"export_policy.py: error: {line.replace('RUN', str(run))}")
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())
