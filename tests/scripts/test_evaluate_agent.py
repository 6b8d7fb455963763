"""Replaying a run's evaluation: the run's own metrics are the oracle."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageSequence

from curl_rl.rl.film import BAND, SIDE
from curl_rl.runs.logger import read_metrics
from helpers.tiny_reach import train_on_tiny_reach

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "evaluate_agent.py"
FLAGS = "--frames 60 --evaluation.every 50 --evaluation.episodes 3"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_on_tiny_reach(tmp_path_factory.mktemp("runs") / "run", FLAGS)


def content(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_the_runs_own_seed_gives_the_runs_last_evaluation(
    command: Any, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(run)
    score, gif = tmp_path / "new" / "score.json", tmp_path / "elsewhere" / "play.gif"
    assert command(run, "--episodes", 3, "--seed", 4, "--device", "cpu", "--json", score, "--gif", gif) == 0
    last = [row for row in read_metrics(run / "metrics.jsonl") if "evaluation/return_mean" in row][-1]
    written = json.loads(score.read_text())
    evaluation = {name: value for name, value in last.items() if name.startswith("evaluation/")}
    assert {name: written[name] for name in evaluation} == evaluation
    assert written["frames"] == last["frames"] == 60
    assert written["seed"] == 4
    assert sum(written["returns"]) / 3 == pytest.approx(evaluation["evaluation/return_mean"])
    assert f"mean {evaluation['evaluation/return_mean']:.1f}" in capsys.readouterr().out
    with Image.open(gif) as played, Image.open(run / "videos" / "0000000060.gif") as recorded:
        assert played.size == (2 * SIDE + 4, SIDE + BAND)
        assert played.tobytes() == recorded.tobytes()
    assert content(run) == before


def test_every_nth_picture_takes_as_long_and_ends_with_the_episode(command: Any, run: Path, tmp_path: Path) -> None:
    recorded, thinned = run / "videos" / "0000000060.gif", tmp_path / "thinned.gif"
    assert command(run, "--episodes", 1, "--seed", 4, "--device", "cpu", "--gif", thinned, "--gif_every", 7) == 0
    durations, pictures = [], []
    for path in (recorded, thinned):
        with Image.open(path) as gif:
            durations.append([image.info["duration"] for image in ImageSequence.Iterator(gif)])
            pictures.append([np.asarray(image.convert("RGB"), float) for image in ImageSequence.Iterator(gif)])
    assert len(durations[1]) <= len(durations[0]) / 7 + 1
    assert sum(durations[1]) == pytest.approx(sum(durations[0]), abs=7 * min(durations[0]))
    # The last picture is like the last one of all, and no other: not equal, because each file has a palette of its own.
    distances = [np.abs(picture - pictures[1][-1]).mean() for picture in pictures[0]]
    assert np.argmin(distances) == len(distances) - 1
    assert thinned.stat().st_size < recorded.stat().st_size / 2


def test_other_seeds_are_other_episodes_and_nothing_is_written_unasked(command: Any, run: Path, tmp_path: Path) -> None:
    before = content(run)
    for seed in (0, 4):
        assert command(run, "--episodes", 1, "--seed", seed, "--json", tmp_path / f"{seed}.json") == 0
    one, other = (json.loads((tmp_path / f"{seed}.json").read_text())["returns"] for seed in (0, 4))
    assert one != other
    assert content(run) == before


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("{run} --episodes 0", "--episodes must be at least 1, got 0"),
        ("{run} --gif_every 0", "--gif_every must be at least 1, got 0"),
        ("{run} --gif_every 2", "--gif_every needs --gif FILE"),
        ("{run} --seed -1", "--seed must be 0 or more, got -1"),
        ("{run} --device cuda:99", "device cuda:99 not found"),
        ("{run} --device gpu", "device must be auto, cpu, cuda or cuda:<n>, got 'gpu'"),
        ("{run} --episode 3", "unrecognized arguments: --episode 3"),
        ("{tmp}", r"is not a run directory \(config.yaml is missing\)"),
        ("{tmp}/nowhere", r"is not a run directory \(config.yaml is missing\)"),
        ("{run} --json /dev/null/score.json", "cannot write .*/dev/null"),
        ("{run} --episodes 1 --json {tmp}", "cannot write {tmp}: Is a directory"),
        ("", "the following arguments are required: run"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    command: Any, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: str, line: str
) -> None:
    assert command(*arguments.format(run=run, tmp=tmp_path).split()) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if "episode/s" not in line]
    assert len(error) == 1
    assert re.fullmatch(f"evaluate_agent.py: error: .*{line.format(tmp=tmp_path)}.*", error[0])


def test_a_run_without_a_checkpoint(command: Any, run: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
    assert command(tmp_path) == 2
    assert f"{tmp_path} has no checkpoint yet" in capsys.readouterr().err
    (tmp_path / "config.yaml").write_text("frames: many")
    assert command(tmp_path) == 2
    assert "frames must be a whole number, got many" in capsys.readouterr().err


def test_the_sheet_shows_the_evaluations_of_the_run(command: Any, run: Path, tmp_path: Path) -> None:
    assert command(run, "--episodes", 1, "--sheet", tmp_path / "new" / "sheet.png") == 0
    with Image.open(tmp_path / "new" / "sheet.png") as sheet:
        assert sheet.height == 120 * len(list((run / "videos").iterdir()))
