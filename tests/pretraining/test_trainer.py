"""The pretraining loop on noise, without images or folders: the order of events, and faults.

The oracle of every resumption is a run that was left alone.
"""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from curl_rl.artifacts.encoder_file import load_encoder
from curl_rl.objectives import BatchInfo
from curl_rl.pretraining.trainer import Pretrainer
from curl_rl.pretraining.watchers import Watcher
from curl_rl.runs import checkpoint
from curl_rl.runs.errors import TrainingFault, UserError
from curl_rl.runs.signals import Stopped
from helpers.noise_runs import assert_same_run, at_step, die, networks, rows, train, train_until_killed, trainer
from helpers.noise_source import NoiseSource, Plan

pytestmark = pytest.mark.usefixtures("dummies")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("alone") / "run"
    train(Plan(directory, method="simclr"))
    return directory


def plan(directory: Path, **changes: Any) -> Plan:
    return replace(Plan(directory / "run", method="simclr"), **changes)


# ---- the order of events


def test_the_messages_and_files_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(plan(tmp_path))
    said = capsys.readouterr().err
    assert "11 pictures of noise, 2 steps of 5 per epoch" in said
    assert "done: 3 epochs; use it" in said
    # Six steps: a row at each, a checkpoint at every third.
    assert [row["pictures"] for row in rows(tmp_path / "run")] == [5, 10, 15, 20, 25, 30]
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["0000000015.ckpt", "0000000030.ckpt"]
    provenance = json.loads((tmp_path / "run" / "encoder.json").read_text())["provenance"]
    expected = {"method": "simclr", "preset": "none", "seed": 3, "noise": "white", "epochs": 3.0}
    assert provenance.items() >= expected.items()
    assert load_encoder(tmp_path / "run").rendered_size == 8
    train(plan(tmp_path))
    assert "this run is complete at 3 epochs" in capsys.readouterr().err


class Noting(Watcher):
    """Records when it is called, and reports a number."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    def prepare(self, run: Pretrainer) -> None:
        self.calls.append(("prepare", run.learner.steps))

    def after_step(self, run: Pretrainer) -> None:
        self.calls.append(("after_step", run.learner.steps))
        assert run.newest is not None
        assert len(run.newest[1]) == 2
        if run.due(2):
            run.session.scalars({"epoch/ended": run.epochs})

    def finish(self, run: Pretrainer) -> None:
        self.calls.append(("finish", run.learner.steps))
        assert run.complete


def test_watchers_see_every_step_before_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher, save = Noting(), Pretrainer.save

    def saving(self: Pretrainer) -> None:
        watcher.calls.append(("save", self.learner.steps))
        save(self)

    monkeypatch.setattr(Pretrainer, "save", saving)
    train(plan(tmp_path), watchers=[watcher])
    steps = [("after_step", step) for step in range(1, 7)]
    expected = [("prepare", 0), *steps[:3], ("save", 3), *steps[3:], ("save", 6), ("finish", 6), ("save", 6)]
    assert watcher.calls == expected
    # After the second epoch of two steps, and after the last.
    ended = [(row["pictures"], row["epoch/ended"]) for row in rows(tmp_path / "run") if "epoch/ended" in row]
    assert ended == [(20, 2), (30, 3)]


def test_watching_changes_nothing(alone: Path, tmp_path: Path) -> None:
    train(plan(tmp_path), watchers=[Watcher(), Noting()])
    assert all(torch.equal(value, networks(alone)[name]) for name, value in networks(tmp_path / "run").items())


def test_a_source_with_classes_has_a_probe(tmp_path: Path) -> None:
    run = train(plan(tmp_path, method="labeled"), SortedNoise(classes=("dark", "bright")))
    assert run.probe is not None
    assert all({"probe/accuracy", "objective/cross_entropy"} <= row.keys() for row in rows(tmp_path / "run"))


class SortedNoise(NoiseSource):
    has = NoiseSource.has | {"labels"}


def test_a_method_that_needs_more_than_the_source_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\Amethod labeled needs labels, which noise does not have: take simclr\Z"):
        trainer(plan(tmp_path, method="labeled"))


@pytest.mark.parametrize(
    ("change", "line"),
    [("identity", "noise has as many pictures as when this run was saved, but not the same ones"), ("count", "had 11")],
)
def test_a_run_resumes_only_with_the_same_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, line: str
) -> None:
    train(plan(tmp_path))
    if change == "identity":
        monkeypatch.setattr(NoiseSource, "identity", "of seed 1")
    else:
        monkeypatch.setattr(NoiseSource, "__len__", lambda self: 12)
    with pytest.raises(UserError, match=line):
        trainer(plan(tmp_path))


# ---- killed, stopped, damaged


@pytest.mark.parametrize("step", [1, 3, 4, 6])
def test_killed_at_a_step_and_resumed(alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    train_until_killed(plan(tmp_path), lambda: at_step(monkeypatch, step, die))
    train(plan(tmp_path))
    assert_same_run(tmp_path / "run", alone)


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_killed_while_a_checkpoint_is_written(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    def prepare() -> None:
        calls, write = iter(range(1, 100)), checkpoint._write

        def half(file: Any, *arguments: Any) -> None:
            if next(calls) == nth:
                file.write(b"half a checkpoint")
                file.flush()
                die()
            write(file, *arguments)

        monkeypatch.setattr(checkpoint, "_write", half)

    train_until_killed(plan(tmp_path), prepare)
    assert list((tmp_path / "run" / "checkpoints").glob("*.partial"))
    train(plan(tmp_path))
    assert_same_run(tmp_path / "run", alone)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_at_once(
    alone: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    code: int,
) -> None:
    with monkeypatch.context() as patch:
        at_step(patch, 4, lambda: os.kill(os.getpid(), number))
        with pytest.raises(Stopped) as stopped:
            train(plan(tmp_path))
    assert stopped.value.exit_code == code
    assert "saved at epoch 2.00; the same command resumes" in capsys.readouterr().err
    train(plan(tmp_path))
    assert "resumed at epoch 2.00 of 3" in capsys.readouterr().err
    assert_same_run(tmp_path / "run", alone)


def test_a_truncated_checkpoint_is_skipped(alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        at_step(patch, 5, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Stopped):
            train(plan(tmp_path))
    before, newest = sorted((tmp_path / "run" / "checkpoints").glob("*.ckpt"))
    os.truncate(newest, newest.stat().st_size // 2)
    with pytest.warns(RuntimeWarning, match=f"{newest.name} .*using {before.name} instead"):
        train(plan(tmp_path))
    assert_same_run(tmp_path / "run", alone)


# ---- faults


class Failing(NoiseSource):
    """Raises an error instead of yielding its fifth batch."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error, self.given = error, 0

    def batches(self, *arguments: Any, **named: Any) -> Iterator[BatchInfo]:
        for batch in super().batches(*arguments, **named):
            self.given += 1
            if self.given == 5:
                raise self.error
            yield batch


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            OSError(errno.EIO, "Input/output error"),
            "Input/output error; nothing that was saved is lost: check the",
        ),
        (UserError("9 pictures in a row cannot be read"), "cannot be read; nothing that was saved is lost: fix this"),
        (torch.OutOfMemoryError("CUDA out of memory"), "CUDA out of memory; the last checkpoint is intact: lower it"),
    ],
)
def test_a_fault_names_the_place_and_loses_nothing(alone: Path, tmp_path: Path, error: Exception, line: str) -> None:
    with pytest.raises(TrainingFault, match=rf"\Astopped at epoch 2.00 \(step 4\): .*{line}") as fault:
        train(plan(tmp_path), Failing(error))
    assert "\n" not in str(fault.value)
    train(plan(tmp_path))
    assert_same_run(tmp_path / "run", alone)


@pytest.mark.parametrize("nth", [1, 2])
def test_a_full_disk_keeps_the_earlier_checkpoint(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    calls, write = iter(range(1, 100)), checkpoint._write

    def full(file: Any, *arguments: Any) -> None:
        if next(calls) == nth:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(file, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_write", full)
        with pytest.raises(TrainingFault, match=rf"\(step {3 * nth}\): .*No space left on device"):
            train(plan(tmp_path))
    assert len(list((tmp_path / "run" / "checkpoints").glob("*.ckpt"))) == nth - 1
    train(plan(tmp_path))
    assert_same_run(tmp_path / "run", alone)


@pytest.mark.parametrize("what", ["weight", "cluster"])
def test_non_finite_values_are_never_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    run = trainer(plan(tmp_path, log=replace(Plan.log, every=100)))

    def spoil() -> None:
        if what == "weight":
            next(run.learner.objective.parameters()).data.fill_(torch.nan)
        else:
            run.session.means.add({"clusters/used": torch.tensor(torch.nan)})

    at_step(monkeypatch, 5, spoil)
    with pytest.raises(TrainingFault, match=r"\(step 6\): no longer finite: .*; the last checkpoint .*; slow down"):
        run.run()
    run.close()
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["0000000015.ckpt"]


def test_a_run_whose_watcher_cannot_write_at_the_end_can_still_be_completed(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the run were saved as complete first, repeating the command would not write what is missing."""

    class Unwritten(Watcher):
        def finish(self, run: Pretrainer) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(TrainingFault, match=r"stopped at epoch 3.00 \(step 6\)"):
        train(plan(tmp_path, checkpoint=replace(Plan.checkpoint, every=4)), watchers=[Unwritten()])
    watcher = Noting()
    train(plan(tmp_path, checkpoint=replace(Plan.checkpoint, every=4)), watchers=[watcher])
    assert ("finish", 6) in watcher.calls
