"""Trackers by stand-ins for their packages: what they are told, and that a run does not depend on them."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from curl_rl.runs.errors import UserError
from curl_rl.runs.logger import read_metrics
from curl_rl.runs.trackers import NAME, Trackers
from helpers.tiny_reach import train_on_tiny_reach


class Standin:
    """The calls that wandb and trackio have in common."""

    def __init__(self, failing: str = "") -> None:
        self.failing = failing
        self.begun: list[dict[str, Any]] = []
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.finished = 0

    def init(self, **named: Any) -> SimpleNamespace:
        self._fail("init")
        self.begun.append(named)
        return SimpleNamespace(log=self._log, finish=self._finish)

    def _log(self, row: dict[str, float], step: int) -> None:
        self._fail("log")
        self.rows.append((step, row))

    def _finish(self) -> None:
        self._fail("finish")
        self.finished += 1

    def _fail(self, call: str) -> None:
        if call == self.failing:
            raise ConnectionError("nobody answers")


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_run_sends_the_rows_of_its_log_and_continues_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    package = Standin()
    monkeypatch.setitem(sys.modules, name, package)  # type: ignore[arg-type]
    for frames in (24, 32):
        run = train_on_tiny_reach(tmp_path / "run", f"--frames {frames} --log.every 8 --log.trackers [{name}]")
    logged = [
        (row.pop("frames"), {name: value for name, value in row.items() if name != "wall_time"})
        for row in read_metrics(run / "metrics.jsonl")
    ]
    assert package.rows == logged
    first, again = package.begun
    assert first["name"] == again["name"] == (run / NAME).read_text().strip()
    assert first["resume"] == "allow"
    assert first["config"]["env"] == "tiny-reach"
    assert ("id" in first) == (name == "wandb")
    assert package.finished == 2


@pytest.mark.parametrize("call", ["init", "log", "finish"])
def test_a_tracker_that_fails_is_named_once_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], call: str
) -> None:
    broken, sound = Standin(call), Standin()
    monkeypatch.setitem(sys.modules, "wandb", broken)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "trackio", sound)  # type: ignore[arg-type]
    trackers = Trackers(["wandb", "trackio"], tmp_path, {})
    for count in range(3):
        trackers.scalars(count, {"a": 1.0, "b": math.nan})
    trackers.close()
    trackers.close()
    assert sound.rows == [(count, {"a": 1.0}) for count in range(3)]
    assert sound.finished == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "warning: wandb gets no more of this run, which goes on: ConnectionError: nobody answers"


def test_a_package_that_is_missing_is_named_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"log.trackers wandb needs the package wandb, .* pip install wandb"):
        Trackers(["wandb"], tmp_path, {})
    assert list(tmp_path.iterdir()) == []


def test_every_run_has_a_name_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = Standin()
    monkeypatch.setitem(sys.modules, "trackio", package)  # type: ignore[arg-type]
    for place in ("one/cpu/seed1", "two/cpu/seed1"):
        (tmp_path / place).mkdir(parents=True)
        Trackers(["trackio"], tmp_path / place, {})
    names = [begun["name"] for begun in package.begun]
    assert names[0].startswith("one-cpu-seed1-")
    assert names[1].startswith("two-cpu-seed1-")
    assert "/" not in "".join(names)
