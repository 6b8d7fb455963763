"""The report on saved runs: what is on the page, what is said to be missing, and how a browser shows it."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

SAVED = Path(__file__).resolve().parents[1] / "data" / "saved"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytest.importorskip("matplotlib")


FEW = ("frames", "images", "wall_time", "evaluation/return_mean", "critic/loss", "loss", "knn/accuracy")


def copied(name: str, to: Path) -> Path:
    """A saved run with few metrics: drawing the others takes most of the time."""
    run = Path(shutil.copytree(SAVED / name, to))
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    few = [{name: value for name, value in row.items() if name in FEW} for row in rows]
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in few))
    return run


@pytest.fixture
def agent(tmp_path: Path) -> Path:
    return copied("agent-curl", tmp_path / "agent")


def content(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def headings(page: str) -> list[str]:
    return re.findall(r"<h3>(.*?)</h3>", page)


def test_an_agents_page_has_every_part_and_the_run_is_unchanged(command: Any, agent: Path, tmp_path: Path) -> None:
    before, out = content(agent), tmp_path / "new" / "report.html"
    assert command(agent, "--out", out, "--moments", 30, "--device", "cpu") == 0
    page = out.read_text()
    assert headings(page) == [
        *("Diagnosis", "Evaluations", "Curves", "All evaluations", "Videos"),
        *("What the agent sees", "What actor and critic react to", "Map of the embeddings"),
    ]
    assert page.count("data:image/gif") == 3
    assert "110 of 140 frames" in page
    assert "<nav>" not in page
    code = json.loads((agent / "encoder.json").read_text())["provenance"]
    assert f"<td>code</td><td>curl_rl {code['curl_rl']}, " in page
    assert f"torch {code['torch']}</td>" in page
    # The saved videos are small ones of an earlier version, which nobody could see in their own size.
    with Image.open(min((agent / "videos").glob("*.gif"))) as video:
        assert 256 // video.width > 1
        assert page.count(f'style="width: {256 // video.width * video.width}px" src="data:image/gif') == 3
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert content(agent) == before


@pytest.mark.parametrize("kind", ["no checkpoint", "no environment", "nothing logged"])
def test_what_is_missing_is_named_and_the_rest_is_shown(command: Any, agent: Path, tmp_path: Path, kind: str) -> None:
    if kind == "no checkpoint":
        shutil.rmtree(agent / "checkpoints")
        expected = "agent has no checkpoint yet"
    elif kind == "no environment":
        settings = (agent / "config.yaml").read_text().replace("env: tiny-reach", "env: gym:nowhere:Lost-v0")
        (agent / "config.yaml").write_text(settings)
        expected = "The environment cannot be made here (environment gym:nowhere:Lost-v0 cannot be created"
    else:
        (agent / "metrics.jsonl").write_text('{"frames": 10, "wall_')  # as a run that has just begun leaves it
        (agent / "run.lock").touch()
        expected = "The run has logged nothing yet."
    assert command(agent, "--out", tmp_path / "report.html", "--moments", 3, "--device", "cpu") == 0
    page = (tmp_path / "report.html").read_text()
    assert expected in page
    assert ("Evaluations" in headings(page)) == (kind != "nothing logged")
    assert ("Map of the embeddings" in headings(page)) == (kind != "no checkpoint")


def test_images_have_views_neighbors_and_a_map(command: Any, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    run = copied("pretrained-resnet", tmp_path / "run")
    before = content(run)
    assert command(run, "--out", tmp_path / "report.html", "--protocols", "knn", "--device", "cpu") == 0
    page = (tmp_path / "report.html").read_text()
    for title in ("Curves", "Views", "Standard protocols", "Nearest neighbors", "Map of the embeddings"):
        assert title in headings(page)
    assert content(run) == before


def test_images_that_are_not_here_are_named(command: Any, tmp_path: Path) -> None:
    run = copied("pretrained-pixel", tmp_path / "run")
    assert command(run, "--out", tmp_path / "report.html", "--device", "cpu") == 0
    assert "The images cannot be loaded here" in (tmp_path / "report.html").read_text()


def test_several_runs_are_compared(command: Any, agent: Path, tmp_path: Path) -> None:
    copied("agent-byol-joint", tmp_path / "other")
    with (tmp_path / "other" / "run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as the process that trains it does
        assert command(agent, tmp_path / "other", agent, "--out", tmp_path / "r.html", "--moments", 0) == 0
    page = (tmp_path / "r.html").read_text()
    assert page.count("; still running") == 2  # in the table of all runs and in its own
    assert re.findall(r"<h2>(.*?)</h2>", page) == [
        "All runs",
        "tiny-reach, seed 4 (agent)",
        "tiny-reach, seed 4 (other)",
    ]
    assert "Evaluation returns, by task and kind of run." in page


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("{tmp}/nowhere", "{tmp}/nowhere is not a directory: name a run or a folder of runs"),
        ("{tmp}", "no run below {tmp}: a run has a config.yaml"),
        ("{tmp} --moments -1", "--moments must be 0 or more, got -1"),
        ("{tmp} --protocols fine_tune", "argument --protocols: invalid choice: 'fine_tune'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: str, line: str
) -> None:
    assert command(*arguments.format(tmp=tmp_path).split()) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert line.format(tmp=tmp_path) in error


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no browser is installed to look at the page with")
def test_a_browser_shows_the_pictures_beside_each_other_within_the_page(
    command: Any, agent: Path, tmp_path: Path
) -> None:
    out, picture = tmp_path / "report.html", tmp_path / "page.png"
    assert command(agent, "--out", out, "--moments", 30, "--device", "cpu") == 0
    line = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    line += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,5000"]
    subprocess.run([*line, f"--screenshot={picture}", out.as_uri()], check=True, capture_output=True, timeout=120)
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert pixels.shape == (5000, 1200, 3)
    # Nothing reaches the right edge, so nothing is wider than the page.
    assert (pixels[:, -20:] == 255).all()
    # The curves' blue, the saliency's red and the map's yellow are all there.
    for color in ((0x00, 0x72, 0xB2), (0xFF, 0x3C, 0x1E), (0xFD, 0xE7, 0x25)):
        assert (np.abs(pixels - color).max(-1) < 12).sum() > 50, color
    tree = subprocess.run(
        [*line, "--dump-dom", out.as_uri()], check=True, capture_output=True, timeout=120, text=True
    ).stdout
    assert tree.count("<img") == out.read_text().count("<img") > 5
