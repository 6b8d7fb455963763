"""The benchmark's command line; what it measures is not tested, only that it measures and says it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

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
    # Half the batch is half of the convolutions' work; worked out by hand: 744 MFLOP an image for the exact update.
    assert "floor, exact, batch 2" in rows
    assert rows["floor, exact, batch 2"]["note"].startswith("convolutions alone: 1 GFLOP")
    again = run("--compare", path, path)
    assert again.returncode == 0
    assert " 1 " in next(line for line in again.stdout.splitlines() if "joint" in line)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--compare", "none.json", "none.json"), "none.json is no list of benchmark rows"),
        (("--device", "cuda:99"), "device cuda:99 is not there"),
        (("--batch", 0), "must be at least 1"),
        (("--suite", "speed"), "invalid choice"),
    ],
)
def test_mistakes_are_said_with_exit_code_2(arguments: tuple[object, ...], message: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
