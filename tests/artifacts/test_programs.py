"""Programs from torch.export, loaded with torch alone and compared with the exported encoder."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from curl_rl.artifacts.pretrained import PretrainedEncoder
from curl_rl.artifacts.programs import ProgramInput, encoder_program, export_program, largest_difference
from curl_rl.encoders import EncoderConfig, PixelEncoder
from curl_rl.encoders.resnet import ResNet, ResNetConfig


def pixel() -> PretrainedEncoder:
    torch.manual_seed(0)
    encoder = PixelEncoder((6, 12, 12), EncoderConfig(4, (2, 1), 5))
    return PretrainedEncoder(encoder, 15, {"env": "tiny-reach"}, freeze=True)


def resnet() -> PretrainedEncoder:
    torch.manual_seed(0)
    encoder = ResNet((3, 8, 8), ResNetConfig(width=1 / 16, stem="small", mean=(0.4, 0.5, 0.6), std=(0.2,)))
    encoder(torch.rand(16, 3, 8, 8))  # sets running statistics
    return PretrainedEncoder(encoder, 8, {"data": "digits"}, freeze=True)


@pytest.mark.parametrize(
    ("encoder", "taken"),
    [(pixel(), ProgramInput()), (pixel(), ProgramInput(17, "float32", "HWC")), (resnet(), ProgramInput())],
    ids=["pixel", "pixel-floats-last", "resnet"],
)
def test_the_file_returns_the_encoders_features(
    encoder: PretrainedEncoder, taken: ProgramInput, tmp_path: Path
) -> None:
    assert export_program(encoder, tmp_path / "encoder.pt2", taken) <= 1e-4
    said = {"curl_rl.json": ""}
    program = torch.export.load(tmp_path / "encoder.pt2", extra_files=said).module()
    side = taken.side or encoder.rendered_size
    channels = encoder.observation_shape[0]
    for batch in (1, 3, 11):
        pixels = torch.randint(256, (batch, channels, side, side), dtype=torch.uint8)
        given = pixels if taken.dtype == "uint8" else pixels.permute(0, 2, 3, 1) / 255
        # The network itself, on center crops made here.
        low = (side - 12) // 2
        middle = pixels[:, :, low : low + 12, low : low + 12] if encoder.side else pixels
        torch.testing.assert_close(program(given), encoder.encoder(middle), rtol=1e-4, atol=1e-4)
    description = json.loads(said["curl_rl.json"])
    assert description["provenance"].items() >= encoder.provenance.items()
    shape = [channels, side, side] if taken.layout == "CHW" else [side, side, channels]
    assert description["input"]["shape"] == ["batch", *shape]
    assert description["input"]["range"] == ([0, 255] if taken.dtype == "uint8" else [0, 1])
    assert not list(tmp_path.glob("*.partial"))


def test_the_program_holds_public_operations_only(tmp_path: Path) -> None:
    export_program(pixel(), tmp_path / "encoder.pt2")
    graph = torch.export.load(tmp_path / "encoder.pt2").graph
    names = {str(node.target).split(".")[0] for node in graph.nodes if node.op == "call_function"}
    assert "aten" in names
    assert "mkldnn" not in names


def test_the_encoder_itself_is_not_modified(tmp_path: Path) -> None:
    encoder = pixel()
    free = PretrainedEncoder(encoder.encoder.requires_grad_(True).train(), 15, {}, scale=1 / 255)
    export_program(free, tmp_path / "encoder.pt2")
    assert free.encoder.training
    assert all(parameter.requires_grad for parameter in free.parameters())
    assert (free.layout, free.scale) == ("auto", 1 / 255)


@pytest.mark.parametrize("error", [5e-4, float("nan")])
def test_a_program_that_differs_is_refused(error: float) -> None:
    program = encoder_program(pixel())
    encoder = program.module
    assert largest_difference(encoder, program) == 0
    assert 1e-6 < largest_difference(lambda seen: encoder(seen) + 5e-5, program) < 1e-4
    line = "features, differs from the encoder's by .* at batch size 1, .* nothing was written"
    with pytest.raises(RuntimeError, match=line):
        largest_difference(lambda seen: encoder(seen) + error, program)
    with pytest.raises(RuntimeError, match=r"returns \(1, 4\), but the encoder returns \(1, 5\)"):
        largest_difference(lambda seen: encoder(seen)[:, :4], program)


def test_a_difference_at_a_single_batch_size_is_detected() -> None:
    program = encoder_program(pixel())
    encoder = program.module

    def fixed(seen: torch.Tensor) -> torch.Tensor:
        """A program traced for two images may fail on a third."""
        features: torch.Tensor = encoder(seen)
        features[2:] = 0
        return features

    with pytest.raises(RuntimeError, match="at batch size 7"):
        largest_difference(fixed, program)


def test_a_refused_program_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "encoder.pt2"
    path.write_text("an earlier one")

    def other(*_: Any, **__: Any) -> Any:
        changed = pixel()
        torch.nn.init.ones_(changed.encoder.projection.norm.bias)  # type: ignore[arg-type, union-attr]
        example = (torch.zeros(2, 6, 15, 15, dtype=torch.uint8),)
        sizes = {"observations": {0: torch.export.Dim("batch", min=1)}}
        return real(changed, example, dynamic_shapes=sizes, strict=False)

    real = torch.export.export
    monkeypatch.setattr(torch.export, "export", other)
    with pytest.raises(RuntimeError, match="nothing was written"):
        export_program(pixel(), path)
    assert [file.name for file in tmp_path.iterdir()] == ["encoder.pt2"]
    assert path.read_text() == "an earlier one"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"side": 11}, "^side must be at least 12, the size of the encoder's crop, got 11$"),
        ({"side": 0}, "^side must be at least 1 pixel, got 0$"),
        ({"dtype": "int8"}, "^dtype must be uint8 or float32, got 'int8'$"),
        ({"layout": "auto"}, "^layout must be CHW or HWC, got 'auto'$"),
    ],
)
def test_invalid_input_is_named(changes: dict[str, Any], line: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=line):
        export_program(pixel(), tmp_path / "encoder.pt2", dataclasses.replace(ProgramInput(), **changes))
