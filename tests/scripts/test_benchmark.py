"""The benchmark's command line: that it measures and reports, not the numbers."""

from __future__ import annotations

import importlib.util
import json
import re
import runpy
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from benchmarks import clustering, libraries, objectives
from benchmarks.timing import Row

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "benchmark.py"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_the_update_is_measured_and_compared_with_itself(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    done = run("--suite", "update", "--batch", 2, "--rounds", 2, "--device", "cpu", "--threads", 1, "--json", path)
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(path.read_text())}
    joint = next(row for name, row in rows.items() if name.endswith("joint") and name.startswith("update"))
    assert joint["ratio"] == pytest.approx(joint["plain_ms"] / joint["ours_ms"])
    assert all(name in done.stdout for name in rows)
    # By hand: 744 and 499 MFLOP per image for the exact and the joint update.
    floors = {name: row["note"] for name, row in rows.items() if name.startswith("floor, ")}
    assert "floor, exact, float32, batch 2" in floors
    for name, note in floors.items():
        work = "1.5" if name.startswith("floor, exact") else "1.0"
        assert note.startswith(f"convolutions alone: {work} GFLOP")
    assert any(name.startswith("floor, joint") for name in floors)
    assert re.fullmatch(
        r"[\d.]+% of the exact update, [\d.]+% of the joint update", rows["sample and crop, batch 2"]["note"]
    )
    again = run("--compare", path, path)
    assert again.returncode == 0
    machine = rows[joint["name"]]["machine"]
    assert again.stdout.splitlines()[:2] == [f"A: {machine}", f"B: {machine}"]
    assert " 1 " in next(line for line in again.stdout.splitlines() if "joint" in line)


def test_the_suite_of_objectives_has_all_its_parts_with_batches_of_256(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objectives, "measure", lambda device, rounds, sizes: [Row(f"methods {sizes.batch}")])
    monkeypatch.setattr(libraries, "measure", lambda device, batch, rounds: [Row(f"libraries {batch}")])
    monkeypatch.setattr(clustering, "measure", lambda device, rounds, *, batch: [Row(f"clustering {batch}")])
    measure = runpy.run_path(str(SCRIPT), run_name="benchmark")["_measure"]
    for given, batch in ((None, 256), (32, 32)):
        rows = measure("objectives", torch.device("cpu"), Namespace(batch=given, rounds=1))
        assert [row.name for row in rows] == [f"{part} {batch}" for part in ("methods", "libraries", "clustering")]


@pytest.mark.slow
def test_pretraining_is_measured(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    done = run("--suite", "vision", "--batch", 2, "--rounds", 1, "--device", "cpu", "--threads", 1, "--json", path)
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(path.read_text())}
    step, augmentation = rows["SimCLR step, batch 2, float32"], rows["augmentation, batch 2"]
    assert step["ratio"] == pytest.approx(step["plain_ms"] / step["ours_ms"])
    assert re.match(r"[\d,]+ images a second, plain [\d,]+", step["note"])
    assert re.match(r"[\d.]+% of our step", augmentation["note"])
    kornia = importlib.util.find_spec("kornia") is not None
    assert ("augmentation, batch 2, kornia as plain" in rows) == kornia
    assert ("kornia is not installed" in done.stdout) != kornia


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--compare", "none.json", "none.json"), "none.json is not a list of benchmark rows"),
        (("--device", "cuda:99"), "device cuda:99 not found"),
        (("--batch", 0), "must be at least 1"),
        (("--suite", "speed"), "invalid choice"),
        (("--suite", "replay", "--json", "/proc/none/rows.json"), "cannot write /proc/none"),
    ],
)
def test_mistakes_are_reported_with_exit_code_2(arguments: tuple[object, ...], message: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
