"""ONNX files, loaded with onnxruntime and onnx alone and compared with the exported encoder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from curl_rl.artifacts.pretrained import PretrainedEncoder
from curl_rl.artifacts.programs import ProgramInput
from curl_rl.encoders import EncoderConfig, PixelEncoder
from curl_rl.encoders.resnet import ResNet, ResNetConfig

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
import onnx
import onnxruntime

from curl_rl.integrations import onnx as ours


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
def test_onnxruntime_returns_the_encoders_features(
    encoder: PretrainedEncoder, taken: ProgramInput, tmp_path: Path
) -> None:
    path = tmp_path / "encoder.onnx"
    assert ours.export_onnx(encoder, path, taken) <= 1e-4
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (given_input,), (output,) = session.get_inputs(), session.get_outputs()
    channels, side = encoder.observation_shape[0], taken.side or encoder.rendered_size
    shape = [channels, side, side] if taken.layout == "CHW" else [side, side, channels]
    assert (given_input.name, given_input.shape) == ("observation", ["batch", *shape])
    assert given_input.type == ("tensor(uint8)" if taken.dtype == "uint8" else "tensor(float)")
    assert (output.name, output.shape, output.type) == ("features", ["batch", encoder.features], "tensor(float)")
    for batch in (1, 3, 11):
        pixels = torch.randint(256, (batch, channels, side, side), dtype=torch.uint8)
        given = pixels if taken.dtype == "uint8" else pixels.permute(0, 2, 3, 1) / 255
        (features,) = session.run(None, {"observation": given.numpy()})
        low = (side - 12) // 2
        middle = pixels[:, :, low : low + 12, low : low + 12] if encoder.side else pixels
        torch.testing.assert_close(torch.from_numpy(features), encoder.encoder(middle), rtol=1e-4, atol=1e-4)
    said = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert json.loads(said["curl_rl"])["provenance"].items() >= encoder.provenance.items()


def test_a_model_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong:
        def __init__(self, *_: object, **__: object) -> None: ...

        def run(self, _: object, given: dict[str, object]) -> list[object]:
            return [encoder(torch.as_tensor(given["observation"])).numpy() + 1]

    encoder = pixel()
    monkeypatch.setattr(onnxruntime, "InferenceSession", Wrong)
    with pytest.raises(RuntimeError, match="nothing was written"):
        ours.export_onnx(encoder, tmp_path / "encoder.onnx")
    assert not list(tmp_path.iterdir())
