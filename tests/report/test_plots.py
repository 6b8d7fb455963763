"""The picture of learning curves: the lines in it are the numbers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PIL import Image

from curl_rl.report.curves import Curve
from curl_rl.report.plots import draw_curves, headless_pyplot

pyplot = pytest.importorskip("matplotlib.pyplot")


def test_a_panel_per_task_with_the_seeds_mean_and_the_random_policy(tmp_path: Path) -> None:
    pyplot.close("all")
    curves = [
        Curve("a", "first", {1: {0: 1.0, 10: 4.0}, 2: {0: 3.0, 10: 8.0}}, [2.0, 4.0]),
        Curve("a", "second", {1: {0: 5.0, 10: 6.0}}),
        Curve("b", "first", {1: {0: 0.0}}),
    ]
    draw_curves(curves, tmp_path / "new" / "curves.png")
    panels = pyplot.gcf().axes
    assert [panel.get_title() for panel in panels] == ["a", "b"]
    lines = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in panels[0].lines}
    assert lines["first (2 seeds)"] == ([0, 10], [2.0, 6.0])
    assert lines["second (1 seed)"] == ([0, 10], [5.0, 6.0])
    assert lines["random policy"][1] == [3.0, 3.0]
    assert Image.open(tmp_path / "new" / "curves.png").width > 600
    pyplot.close("all")


def test_missing_matplotlib_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"^matplotlib is missing: pip install matplotlib, or .* extra \[plot\]$"):
        headless_pyplot()
