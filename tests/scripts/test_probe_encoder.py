"""The probe as a user types it: its output, files and picture, and one-line refusals."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from curl_rl.artifacts.encoder_file import save_encoder
from curl_rl.encoders import EncoderConfig, PixelEncoder
from curl_rl.recordings.store import FrameWriter, Recording

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "probe_encoder.py"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five episodes of uniformly bright frames whose brightness is the state."""
    generator = np.random.default_rng(0)
    writer = FrameWriter(tmp_path / "frames", Recording("lamp", 12, 1, "fast", 1, "random", ("light", "still"), 1))
    for _ in range(5):
        light = generator.integers(0, 256, 8)
        frames = [np.full((3, 12, 12), value, np.uint8) for value in light]
        states = [np.array([value / 255, 0.5]) for value in light]
        writer.add_episode(frames, states, [np.zeros(1, np.float32)] * 8, [0.0] * 8)
    writer.flush()
    return tmp_path / "frames"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    directory = tmp_path / "run"
    directory.mkdir()
    torch.manual_seed(0)
    save_encoder(PixelEncoder((6, 10, 10), EncoderConfig(2, (2,), 3)), directory, rendered_size=12, provenance={})
    return directory


def test_table_json_and_picture(command: Any, folder: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    json_file, picture = folder.parent / "new" / "probe.json", folder.parent / "other" / "probe.png"
    more = ("--untrained", "--untrained_seeds", 2, "--raw_pixels", "--json", json_file, "--out", picture)
    assert command(folder, run, *more) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{folder}: 40 frames of 5 episodes (fit 24 of 3, choice 8 of 1, test 8 of 1)"
    assert re.fullmatch(rf"R² +{run} +untrained +raw pixels 12×12", lines[1])
    assert re.fullmatch(r"light +-?\d\.\d{3} +-?\d\.\d{3} ± \d\.\d{3} +1\.000", lines[2])
    assert re.fullmatch(r"still( +constant){3}", lines[3])
    assert re.fullmatch(r"features +3 +3 +864", lines[5])
    content = json.loads(json_file.read_text())
    assert [row["name"] for row in content["rows"]] == [str(run), "untrained", "raw pixels 12×12"]
    assert content["rows"][2]["r2"] == {"light": [pytest.approx(1, abs=1e-6)], "still": None}
    assert len(content["rows"][1]["mean"]) == 2
    assert Image.open(picture).width > 400


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("{tmp}/nowhere {run}", "no recorded frames in .*nowhere: frames.json is missing"),
        ("{folder} {tmp}/nowhere", "no encoder in .*nowhere"),
        ("{folder} {run} --untrained_seeds 0", "--untrained_seeds must be at least 1, got 0"),
        (
            "{folder} {run} --untrained_seeds 5",
            "--untrained_seeds 5 applies to the row that --untrained adds: add it, or .*",
        ),
        ("{folder} {run} --device cuda:99", "device cuda:99 not found"),
        ("{folder} {run} --json /dev/null/x.json", "cannot write /dev/null: .*"),
        ("{folder}", "the following arguments are required: ENCODER"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    command: Any, folder: Path, run: Path, capsys: pytest.CaptureFixture[str], arguments: str, line: str
) -> None:
    assert command(*arguments.format(tmp=folder.parent, folder=folder, run=run).split()) == 2
    assert re.fullmatch(f"probe_encoder.py: error: .*{line}.*\n", capsys.readouterr().err)
