"""The probe's picture."""

from __future__ import annotations

from pathlib import Path

import pytest

from curl_rl.commands.probe_encoder import draw
from curl_rl.recordings.probe import Row


def test_the_bars_are_the_scores(tmp_path: Path) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.close("all")
    rows = [
        Row("one", {"a": (0.5,), "still": None, "b": (1.0,)}, 7),
        Row("untrained", {"a": (0.25, 0.75), "still": None, "b": (0.0, 0.5)}, 7),
    ]
    draw(rows, tmp_path / "probe.png")
    (axis,) = pyplot.gcf().axes
    assert [label.get_text() for label in axis.get_xticklabels()] == ["mean", "a", "b"]
    heights = [[bar.get_height() for bar in group] for group in axis.containers if hasattr(group, "patches")]
    assert heights == [[0.75, 0.5, 1.0], [0.375, 0.5, 0.25]]
    pyplot.close("all")
