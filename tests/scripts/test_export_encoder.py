"""The command, as a user calls it; the exported files are tested with the library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from curl_rl.artifacts.encoder_file import load_encoder, save_encoder
from curl_rl.encoders import EncoderConfig, PixelEncoder

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "export_encoder.py"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    directory = tmp_path / "run"
    directory.mkdir()
    encoder = PixelEncoder((6, 12, 12), EncoderConfig(4, (2, 1), 5))
    save_encoder(encoder, directory, rendered_size=15, provenance={"env": "tiny-reach"})
    return directory


def noise(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_safetensors_travel_alone(command: Any, run: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "cheetah.safetensors"
    assert command(run, "--format", "safetensors", "--output", output) == 0
    assert torch.equal(load_encoder(output)(noise(2, 6, 15, 15)), load_encoder(run)(noise(2, 6, 15, 15)))
    assert [path.name for path in output.parent.iterdir()] == ["cheetah.safetensors"]


def test_exported_reports_its_input(
    command: Any, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "encoder.pt2"
    assert command(run, "--format", "exported", "--output", output, "--size", 13, "--layout", "HWC") == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{output}: uint8 (batch, 13, 13, 6) to float32 (batch, 5); at most ")
    seen = noise(4, 13, 13, 6)
    found = torch.export.load(output).module()(seen)
    torch.testing.assert_close(found, load_encoder(run)(seen), rtol=1e-4, atol=1e-4)


def test_onnx_is_written(command: Any, run: Path, tmp_path: Path) -> None:
    for name in ("onnx", "onnxscript"):
        pytest.importorskip(name)
    onnxruntime = pytest.importorskip("onnxruntime")
    output = tmp_path / "encoder.onnx"
    assert command(run, "--format", "onnx", "--output", output, "--dtype", "float32") == 0
    seen = noise(4, 6, 15, 15)
    (found,) = onnxruntime.InferenceSession(output).run(None, {"observation": seen.div(255).numpy()})
    torch.testing.assert_close(torch.from_numpy(found), load_encoder(run)(seen), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["absent", "--format", "onnx", "--output", "a.onnx"], "no encoder in absent: encoder.safetensors is missing"),
        (
            ["run", "--format", "exported", "--output", "a.pt2", "--size", "7"],
            "side must be at least 12, the size of the encoder's crop, got 7",
        ),
        (
            ["run", "--format", "safetensors", "--output", "taken.safetensors"],
            "--output taken.safetensors exists: choose another, or add --over",
        ),
        (["run", "--format", "safetensors", "--output", "taken.safetensors/a.safetensors"], "cannot write taken.s"),
        (["run", "--format", "torchscript", "--output", "a"], "argument --format: invalid choice: 'torchscript'"),
        (
            ["run", "--format", "safetensors", "--output", "a.bin"],
            "--output a.bin must end in .safetensors for --format safetensors",
        ),
        (
            ["run", "--format", "exported", "--output", "a.onnx"],
            "--output a.onnx must end in .pt2 for --format exported",
        ),
        (["run", "--format", "onnx", "--output", "a"], "--output a must end in .onnx for --format onnx"),
        *(
            (
                ["run", "--format", "safetensors", "--output", "a.safetensors", f"--{name}", value],
                f"--{name} {value} does not apply",
            )
            for name, value in (("size", "20"), ("dtype", "uint8"), ("layout", "HWC"))
        ),
    ],
)
def test_a_mistake_is_one_line_and_code_2(
    command: Any, run: Path, arguments: list[str], line: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parent)
    Path("taken.safetensors").write_text("mine")
    assert command(*arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"export_encoder.py: error: {line}")
    assert said.count("\n") == 1
    assert Path("taken.safetensors").read_text() == "mine"
    assert sorted(path.name for path in Path().iterdir()) == ["run", "taken.safetensors"]


def test_overwriting_needs_a_flag(command: Any, run: Path, tmp_path: Path) -> None:
    output = tmp_path / "a.safetensors"
    output.write_text("mine")
    assert command(run, "--format", "safetensors", "--output", output, "--overwrite") == 0
    load_encoder(output)


def test_a_program_that_is_not_the_encoder_is_code_1(
    command: Any,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def differs(*_: Any) -> float:
        raise RuntimeError("the program's features differ\nby much")

    monkeypatch.setattr("curl_rl.commands.exports.write_program", differs)
    assert command(run, "--format", "exported", "--output", tmp_path / "a.pt2") == 1
    assert capsys.readouterr().err == "export_encoder.py: the program's features differ by much\n"
