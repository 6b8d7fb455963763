"""scripts/detect.py: boxes on pictures of any size, and mistakes in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from curl_rl.vision.detection.box_head import HeadConfig
from curl_rl.vision.detection.detector import Detections, Detector, DetectorConfig, Seen
from curl_rl.vision.detection.detector_file import save_detector
from curl_rl.vision.detection.energy import EnergyTest
from curl_rl.vision.detection.pictures import KNOWN_COLOR, UNKNOWN_COLOR

Command = Callable[..., int]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    (tmp_path / "run").mkdir()
    detector = Detector(3, DetectorConfig(width=0.0625, head=HeadConfig(hidden=8)))
    save_detector(detector, tmp_path / "run", ("cat", "dog"), None, 64, {})
    return tmp_path / "run"


def test_boxes_lie_where_the_detector_sees_them(
    command: Command, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # A picture of 1000 by 500 pixels is seen as 64 by 32.
    def decided(self: Detector, seen: Seen, test: EnergyTest | None) -> list[Detections]:
        boxes = torch.tensor([[16.0, 8, 32, 24], [40, 8, 56, 24], [0, 0, 5, 5]])
        return [Detections(boxes, torch.tensor([1, 3, 0]), torch.tensor([0.9, 0.6, 0.2]))]

    monkeypatch.setattr(Detector, "decide", decided)
    Image.new("RGB", (1000, 500), "gray").save(tmp_path / "wide.jpg")
    assert command(run, tmp_path / "wide.jpg", "--out", tmp_path / "found", "--device", "cpu") == 0
    assert (
        capsys.readouterr().out
        == f"{tmp_path / 'wide.jpg'}: dog 90%, unknown 60%; {tmp_path / 'found' / 'wide-detected.png'}\n"
    )
    pixels = np.asarray(Image.open(tmp_path / "found" / "wide-detected.png"))
    assert pixels.shape == (500, 1000, 3)
    # 1000/64 and 500/32 pixels for each: the left edges at 250 and 625, the bottom at 375.
    assert tuple(pixels[250, 250]) == KNOWN_COLOR
    assert tuple(pixels[250, 625]) == UNKNOWN_COLOR
    assert tuple(pixels[374, 300]) == KNOWN_COLOR
    assert tuple(pixels[250, 200]) == (128, 128, 128)


def test_a_picture_is_never_replaced_by_another_ones_result(
    command: Command, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = [tmp_path / "a.png", tmp_path / "a-detected.png"]
    for picture in pictures:
        Image.new("RGB", (40, 40), "red").save(picture)
    before = pictures[1].read_bytes()
    assert command(run, *pictures, "--out", tmp_path, "--device", "cpu") == 2
    assert f"{pictures[1]} is one of the pictures and would be replaced" in capsys.readouterr().err
    assert pictures[1].read_bytes() == before
    assert command(run, pictures[0], "--out", tmp_path, "--device", "cpu") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{run}", "{tmp}/nothing.png"], "cannot read {tmp}/nothing.png: No such file or directory"),
        (["{run}", "{tmp}/text.png"], "cannot read {tmp}/text.png: it is not an image of a known format"),
        (
            ["{tmp}", "{tmp}/good.png"],
            "no detector in {tmp}: detector.safetensors is missing; name what scripts/train_detector.py has written",
        ),
        (["{run}", "{tmp}/good.png", "--score", "1"], "score must lie in [0, 1), got 1.0"),
        (
            ["{run}", "{tmp}/good.png", "{tmp}/good.jpg"],
            "each picture needs a name of its own in --out, got several for {tmp}/found/good-detected.png: rename them",
        ),
        (["{run}", "{tmp}/good.png", "--size", "8"], "size must be from 32 to 4096, got 8"),
        (["{run}", "{tmp}/good.png", "--size", "1e6"], "size must be from 32 to 4096, got 1000000"),
        (
            ["{run}", "{tmp}/good.png", "{tmp}/text.png"],
            "cannot read {tmp}/text.png: it is not an image of a known format",
        ),
    ],
)
def test_mistakes_are_told_in_one_line(
    arguments: list[str], message: str, command: Command, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for suffix in ("png", "jpg"):
        Image.new("RGB", (60, 40)).save(tmp_path / f"good.{suffix}")
    (tmp_path / "text.png").write_text("not a picture")
    filled = [argument.format(run=run, tmp=tmp_path) for argument in arguments]
    assert command(*filled, "--out", tmp_path / "found", "--device", "cpu") == 2
    said = capsys.readouterr().err
    assert said == f"detect.py: error: {message.format(run=run, tmp=tmp_path)}\n"
    assert not (tmp_path / "found").exists()
