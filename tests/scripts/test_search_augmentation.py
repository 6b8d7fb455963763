"""The command writes a schedule that pretraining plays, resumes, and refuses mistakes in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curl_rl.augment.pba import SLOTS
from curl_rl.vision.schedule_file import read_schedule


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for base, name in ((0, "dark"), (150, "light")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(8):
            pixels = random.integers(base, base + 100, (8, 8, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number}.png")
    return tmp_path / "data"


def test_a_search_writes_its_schedule_and_a_second_one_finds_it_done(
    command: Callable[..., int], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ("--population", 4, "--intervals", 2, "--epochs", 1, "--preset", "digits", "--image_size", 8)
    arguments = ("--data", folder, "--out", tmp_path / "search", *sizes, "--device", "cpu")
    assert command(*arguments) == 0
    schedule = read_schedule(tmp_path / "search" / "schedule.yaml")
    assert schedule.epochs == 2
    assert [len(phase.policy) for phase in schedule.phases] == [len(SLOTS)] * 2
    assert "--augment.policy pba --augment.schedule" in capsys.readouterr().out
    assert command(*arguments) == 0
    assert "resuming after 8 of 8" in capsys.readouterr().out
    assert command(*arguments, "--seed", 3) == 2
    assert "holds a search with other settings, seed 1: choose another --out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--population", 3), "population must be at least 4, got 3"),
        (("--data", "/nowhere"), "no folder /nowhere"),
        (("--learning_rate", -1), "learning_rate must be from 0 to 1,000,000, got -1"),
    ],
)
def test_mistakes_are_one_line(
    command: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[object, ...],
    message: str,
) -> None:
    assert command("--out", tmp_path / "search", *arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "search").exists()
