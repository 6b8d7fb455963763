"""The notebook runs from an empty folder, cell after cell as in Jupyter, and shows what it says."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from envs.tiny import EPISODE_STEPS, SOLVED_RETURN

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "first_steps.ipynb"


def cells(kind: str) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == kind]


def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], Image.Image]:
    """Runs all cells; returns their names and the animation that the notebook shows."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    shown: list[bytes] = []
    display = ModuleType("IPython.display")  # Jupyter's; here the pictures are kept
    display.Image = lambda *, data, format: shown.append(data)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(cells("code")):
        exec(compile("".join(cell["source"]), f"cell {number}", "exec", dont_inherit=True), namespace)
    namespace["plt"].close("all")
    (animation,) = shown
    return namespace, Image.open(io.BytesIO(animation))


def test_cells_run_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FIRST_STEPS_FRAMES", "36")
    names, animation = run(tmp_path, monkeypatch)
    assert (tmp_path / names["directory"] / "encoder.safetensors").is_file()
    assert animation.size == (192, 192)
    durations = []
    for frame in range(getattr(animation, "n_frames")):  # noqa: B009 (of animations only)
        animation.seek(frame)
        durations.append(animation.info["duration"])
    assert sum(durations) == 3 * EPISODE_STEPS * 100  # Pillow joins frames that are equal
    curve, task = (axis.lines[0].get_xdata() for axis in names["axes"])
    assert list(curve) == list(range(0, 37, 6))
    assert len(task)
    printed = capsys.readouterr().out
    assert len(re.findall(r"^(?:un)?trained: R² of the direction to the target", printed, flags=re.MULTILINE)) == 2


def test_it_is_committed_without_outputs() -> None:
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells("code"))


def test_its_links_lead_to_files() -> None:
    links = re.findall(r"\]\(([^)]+)\)", "".join("".join(cell["source"]) for cell in cells("markdown")))
    assert links
    assert [link for link in links if not (NOTEBOOK.parent / link).is_file()] == []


@pytest.mark.slow
def test_the_agent_learns_and_the_encoder_knows_more_than_untrained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, monkeypatch)
    printed = capsys.readouterr().out
    assert float(re.findall(r"mean return of three episodes: ([\d.]+)", printed)[0]) > SOLVED_RETURN
    trained, untrained = re.findall(r"target (-?[\d.]+) \(x\) and (-?[\d.]+) \(y\)", printed)
    assert min(map(float, trained)) > max(map(float, untrained))
