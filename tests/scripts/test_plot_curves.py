"""The picture of learning curves: that the lines in it are the numbers, and that mistakes are one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from curl_rl.report.curves import Curve

pyplot = pytest.importorskip("matplotlib.pyplot")
SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "plot_curves.py"


def test_a_panel_to_a_task_with_the_seeds_mean_and_the_random_policy(script: ModuleType, tmp_path: Path) -> None:
    pyplot.close("all")
    curves = [
        Curve("a", "first", {1: {0: 1.0, 10: 4.0}, 2: {0: 3.0, 10: 8.0}}, [2.0, 4.0]),
        Curve("a", "second", {1: {0: 5.0, 10: 6.0}}),
        Curve("b", "first", {1: {0: 0.0}}),
    ]
    script.draw(curves, tmp_path / "new" / "curves.png")
    panels = pyplot.gcf().axes
    assert [panel.get_title() for panel in panels] == ["a", "b"]
    lines = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in panels[0].lines}
    assert lines["first (2 seeds)"] == ([0, 10], [2.0, 6.0])
    assert lines["second (1 seed)"] == ([0, 10], [5.0, 6.0])
    assert lines["random policy"][1] == [3.0, 3.0]
    assert Image.open(tmp_path / "new" / "curves.png").width > 600
    pyplot.close("all")


def test_no_runs_are_one_line_and_exit_code_2(tmp_path: Path) -> None:
    result = subprocess.run([sys.executable, SCRIPT, tmp_path], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr == f"plot_curves.py: error: no run with an evaluation below {tmp_path}\n"
