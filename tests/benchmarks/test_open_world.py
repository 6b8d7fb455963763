"""The table of detectors' evaluations."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.open_world import main, table
from curl_rl.runs.errors import UserError
from curl_rl.vision.detection.config import SCHEMA, ClusteringConfig, DetectionConfig


def run(directory: Path, seed: int, weight: float, recall: float, errors: float) -> Path:
    directory.mkdir()
    config = DetectionConfig(seed=seed, clustering=ClusteringConfig(weight), run=directory)
    SCHEMA.save(config, directory / "config.yaml")
    numbers = {"map": 0.5, "unknown_recall": recall, "without_energy/open_set_error": errors}
    (directory / "evaluation.json").write_text(json.dumps({"task1": numbers}))
    return directory


def test_seeds_are_averaged_and_kinds_kept_apart(tmp_path: Path) -> None:
    runs = [
        run(tmp_path / "a", 1, 0.1, 0.2, 30),
        run(tmp_path / "b", 2, 0.1, 0.4, 50),
        run(tmp_path / "c", 1, 0.0, 0.1, 90),
    ]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table(runs).splitlines()]
    body = {("clustering.weight 0.0" in row[0], row[3]): row[1:] for row in rows[2:]}
    assert len(body) == 4
    assert body[False, "energy"][0] == "2"
    assert body[False, "energy"][3:] == ["50.0% [50.0%, 50.0%]", "–", "–", "30.0% [20.0%, 40.0%]", "–", "–", "–"]
    assert body[False, "classifier"][8] == "40 [30, 50]"
    assert body[True, "energy"][6] == "10.0%"
    assert body[True, "classifier"][8] == "90"


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no evaluation.json: name the directory of a run of train_detector.py$"):
        table([tmp_path])


def test_mistakes_are_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = run(tmp_path / "a", 1, 0.1, 0.2, 30)
    (damaged / "evaluation.json").write_text('{"task1": {"map"')
    for directory, message in ((tmp_path, "has no evaluation.json: name"), (damaged, "evaluation.json is damaged: ")):
        monkeypatch.setattr(sys, "argv", ["open_world", str(directory)])
        with pytest.raises(SystemExit) as left:
            main()
        said = capsys.readouterr().err
        assert (left.value.code, said.count("\n"), message in said) == (2, 1, True)
