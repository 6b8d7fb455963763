"""The measurement of the initial W, against the statistics of independent embeddings."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "measure_similarity.py"


def measure(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=False)


def test_independent_embeddings_have_the_deviations_implied_by_their_variances() -> None:
    answer = measure("--env", "tiny-reach")
    assert answer.returncode == 0
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in answer.stdout.splitlines()[2:]]
    assert [row[:2] for row in rows] == [
        [embeddings, start]
        for embeddings in ("tiny-reach, untrained encoder", "independent")
        for start in ("uniform", "identity")
    ]
    deviation = {(row[0], row[1]): float(row[4].split()[0]) for row in rows}
    # 50 · 50 products of unit variance, with weights of variance 1/12 and a mean that cancels; 50 of weight 1/√50.
    assert deviation["independent", "uniform"] == pytest.approx(math.sqrt(2500 / 12), rel=0.1)
    assert deviation["independent", "identity"] == pytest.approx(1, rel=0.1)
    # A small W cannot do worse than guessing among the batch's 64 keys; a saturated one can.
    loss = {row[1]: float(row[2]) for row in rows[:2]}
    assert loss["identity"] < math.log(64) + 0.1
    assert loss["uniform"] > loss["identity"]


def test_an_unknown_task_is_one_line_and_exit_code_2() -> None:
    answer = measure("--env", "cheeta-run")
    assert answer.returncode == 2
    assert answer.stderr.startswith("measure_similarity.py: error: environment 'cheeta-run' is unknown; the nearest is")
    assert answer.stderr.count("\n") == 1
