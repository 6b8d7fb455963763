"""The command as a user types it; the picture is tested with the library that draws it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "plot_curves.py"


def test_no_runs_are_one_line_and_exit_code_2(tmp_path: Path) -> None:
    result = subprocess.run([sys.executable, SCRIPT, tmp_path], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr == f"plot_curves.py: error: no run with an evaluation below {tmp_path}\n"
