"""The command line of :mod:`curl_rl.vision.evaluation`: its flags, its output and its refusals."""

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
from curl_rl.encoders.resnet import ResNet, ResNetConfig
from curl_rl.vision import config as vision_config
from curl_rl.vision.config import SCHEMA, load_preset
from curl_rl.vision.evaluation.comparison import evaluate_runs
from curl_rl.vision.evaluation.protocols import EvaluationConfig

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "evaluate_vision.py"


@pytest.fixture(autouse=True)
def presets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "presets"
    directory.mkdir()
    (directory / "tiny.yaml").write_text("epochs: 3\n")
    (directory / "methods.yaml").write_text("rules: []\n")
    monkeypatch.setattr(vision_config, "PRESETS", directory)
    monkeypatch.setattr(vision_config, "METHODS", directory / "methods.yaml")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of an untrained network on light and dark images."""
    random = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 4)):
        for base, name in ((0, "dark"), (150, "light")):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(base, base + 100, (8, 8, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / "data" / split / name / f"{number}.png")
    directory = tmp_path / "run"
    directory.mkdir()
    SCHEMA.save(load_preset("tiny", "simclr", {"data": str(tmp_path / "data"), "seed": 4}), directory / "config.yaml")
    torch.manual_seed(0)
    encoder = ResNet((3, 8, 8), ResNetConfig(width=1 / 16, stem="small"))
    save_encoder(encoder, directory, rendered_size=8, provenance={})
    return directory


def test_flags_reach_the_evaluation_and_json_matches_the_output(
    command: Any, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = tmp_path / "new" / "row.json"
    line = "--protocols knn --k 3 --temperature 0.3 --device cpu --untrained --raw_pixels --json"
    assert command(run, *line.split(), written, "--transfer", tmp_path / "data") == 0
    config = EvaluationConfig(protocols=("knn",), k=3, temperature=0.3)
    rows = evaluate_runs([run], config, transfer=str(tmp_path / "data"), untrained=True, raw_pixels=True)
    content = json.loads(written.read_text())
    assert content["rows"] == [row.as_dict() for row in rows]
    assert [row["name"] for row in content["rows"]] == [
        "simclr tiny",
        "untrained ResNet-18, width 0.0625",
        "raw pixels",
    ]
    assert content["rows"][0]["seeds"] == [4]
    assert list(content["rows"][0]["scores"]) == ["knn", "transfer_knn"]
    assert content["protocols"]["k"] == 3
    out = capsys.readouterr().out
    assert "kNN with k 3 and temperature 0.3." in out
    assert f"| {100 * rows[0].mean('knn'):.2f} " in out


def test_by_default_nearest_neighbors_and_linear_evaluation_and_nothing_is_written(
    command: Any, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in run.parent.rglob("*") if path.is_file()}
    assert command(run, "--k", 3, "--device", "cpu") == 0
    out = capsys.readouterr().out.splitlines()
    assert [cell.strip() for cell in out[2].split("|")] == ["", "", "seeds", "knn", "linear", ""]
    assert len(out) == 5
    assert {path: path.read_bytes() for path in run.parent.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("", "the following arguments are required: RUN"),
        ("{tmp}", r"is not a run directory \(config.yaml is missing\)"),
        ("{run} {run} --k 3", "is a second run of simclr tiny, seed 4: pass fewer directories"),
        ("{run} --k 0", "k must be at least 1, got 0"),
        ("{run} --k 17", "k must be between 1 and the 16 training features, got 17"),
        ("{run} --labels 2", r"labels must be shares above 0 and at most 1, got \[2.0\]"),
        ("{run} --protocols magic", "invalid choice: 'magic'"),
        ("{run} --data {tmp}/nowhere", "no folder {tmp}/nowhere"),
        ("{run} --transfer {tmp}/data/train", "has no test images"),
        ("{run} --transfer {tmp}/data/train/dark", "has no test images"),
        ("{run} --device cuda:99", "device cuda:99 not found"),
        ("{run} --json /dev/null/row.json", "cannot write .*/dev/null"),
        ("{run} --json {tmp}", "cannot write {tmp}: Is a directory"),
        ("{run} --untrain", "unrecognized arguments: --untrain"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    command: Any, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: str, line: str
) -> None:
    assert command(*arguments.format(run=run, tmp=tmp_path).split()) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert re.fullmatch(f"evaluate_vision.py: error: .*{line.format(tmp=tmp_path)}.*", error[0])


def test_data_without_labels_or_with_one_class(
    command: Any, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, classes, line in (
        ("flat", [""], "labels are needed"),
        ("one", ["cat"], "two or more classes are needed"),
    ):
        for split in ("train", "test"):
            for place in classes:
                (tmp_path / name / split / place).mkdir(parents=True)
                for number in range(2):
                    Image.new("RGB", (8, 8)).save(tmp_path / name / split / place / f"{number}.png")
        assert command(run, "--data", tmp_path / name) == 2
        assert line in capsys.readouterr().err
