"""Runs of the detector: they resume bit for bit, keep what they promise, and refuse what is not theirs."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from curl_rl.objectives.open_world import OpenWorldConfig
from curl_rl.pretraining.config import CheckpointConfig
from curl_rl.report.run_report import run_directories
from curl_rl.report.runs import read_run
from curl_rl.runs import checkpoint
from curl_rl.runs.errors import UserError
from curl_rl.runs.logger import read_metrics
from curl_rl.runs.signals import Stopped
from curl_rl.vision.detection.box_head import HeadConfig
from curl_rl.vision.detection.config import (
    ClusteringConfig,
    ComputeConfig,
    DetectionConfig,
    EnergyConfig,
    ExemplarsConfig,
    LogConfig,
    ObjectivesConfig,
    read_config,
)
from curl_rl.vision.detection.detector import DetectorConfig
from curl_rl.vision.detection.detector_file import load_detector
from curl_rl.vision.detection.proposals import ProposalConfig
from curl_rl.vision.detection.scenes import ScenesConfig
from curl_rl.vision.detection.trainer import DetectionTrainer
from curl_rl.vision.detection.training import train_detector
from curl_rl.vision.detection.unknowns import LabelingConfig
from helpers.cutout_folders import make_cutouts


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_cutouts(tmp_path_factory.mktemp("data") / "shapes")
    (folder.parent / "tasks.yaml").write_text("tasks: [[disk, bar], [cross]]\nunknown: [frame]\n")
    return folder


def tiny(data: Path, run: Path, **changes: Any) -> DetectionConfig:
    config = DetectionConfig(
        data=str(data),
        tasks=data.parent / "tasks.yaml",
        steps=4,
        batch_size=2,
        seed=3,
        device="cpu",
        run=run,
        test_scenes=4,
        scenes=ScenesConfig(size=48, smallest=16, largest=24, most=2, background="plain"),
        detector=DetectorConfig(
            width=0.0625, proposals=ProposalConfig(considered=20, kept=8), head=HeadConfig(hidden=8), score=0.0
        ),
        labeling=LabelingConfig(objectness=0.0),
        objectives=ObjectivesConfig(OpenWorldConfig(margin=1.0, burn_in=2, every=1)),
        energy=EnergyConfig(scenes=20),
        exemplars=ExemplarsConfig(per_class=2, steps=3),
        checkpoint=CheckpointConfig(every=3),
        log=LogConfig(every=2, images_every=3, gallery=4),
        compute=ComputeConfig(threads=1),
    )
    return replace(config, **changes)


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_detector(tiny(data, tmp_path_factory.mktemp("undisturbed") / "run"))


def state(run: Path) -> dict[str, Any]:
    found = checkpoint.load_newest(run / "checkpoints", read_only=True)
    assert found is not None
    return found[1]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)


def test_a_run_leaves_what_it_promises(data: Path, undisturbed: Path) -> None:
    assert {path.name for path in (undisturbed / "gallery").iterdir()} == {
        "task1.png",
        "task2.png",
        "task2-replay.png",
    }
    with Image.open(undisturbed / "gallery" / "task1.png") as picture:
        assert picture.width == 4 * 240 + 3 * 6
    results = json.loads((undisturbed / "evaluation.json").read_text())
    assert list(results) == ["task1", "task2", "task2-replay"]
    assert {"without_energy/map", "without_energy/unknown_recall", "without_energy/open_set_error"} <= results[
        "task1"
    ].keys()
    assert "without_energy/map_previous" in results["task2"]
    rows = read_metrics(undisturbed / "metrics.jsonl", "images")
    evaluated = [row for row in rows if "evaluation/without_energy/map" in row]
    assert [row["images"] for row in evaluated] == [8, 16, 22]
    assert rows[-1]["images"] == 22
    assert load_detector(undisturbed).classes == ("disk", "bar", "cross")
    run = read_run(undisturbed)
    assert (run.axis, run.env, run.seed) == ("images", str(data), 3)
    assert run.label.startswith("digits, steps 4, batch_size 2, test_scenes 4, scenes.size 48")


def test_the_first_task_keeps_exemplars_and_the_second_does_not_know_the_third(undisturbed: Path) -> None:
    found = state(undisturbed)
    assert len(found["exemplars"]) == 2
    assert all(found["exemplars"])
    assert max(found["exemplars"][0]) < 8 <= min(found["exemplars"][1])
    assert found["phase"] == 3
    assert found["clusters"]["steps"].item() == 11


class KilledError(BaseException):
    """Not an Exception, so that nothing in the loop reports it."""


def interrupted(monkeypatch: pytest.MonkeyPatch, at: int, what: Callable[[], None], method: str = "step") -> None:
    """Does ``what`` after the ``at``-th call of a method of the trainer."""
    real = getattr(DetectionTrainer, method)
    calls = 0

    def wrapped(self: DetectionTrainer, *arguments: Any) -> Any:
        nonlocal calls
        answer = real(self, *arguments)
        calls += 1
        if calls == at:
            what()
        return answer

    monkeypatch.setattr(DetectionTrainer, method, wrapped)


def kill() -> None:
    raise KilledError


@pytest.mark.parametrize(("saves", "classes"), [(2, ("disk", "bar")), (3, ("disk", "bar", "cross"))])
def test_the_saved_detector_knows_the_classes_it_has_been_taught(
    saves: int, classes: tuple[str, ...], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Saved at the end of the first task, and two steps into the second.
    interrupted(monkeypatch, saves, kill, "save")
    with pytest.raises(KilledError):
        train_detector(tiny(data, tmp_path / "run"))
    assert state(tmp_path / "run")["steps"] == {2: 4, 3: 6}[saves]
    assert load_detector(tmp_path / "run").classes == classes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "at"), [("step", 2), ("step", 4), ("_evaluate", 1), ("step", 7), ("_evaluate", 2), ("step", 10)]
)
def test_a_killed_run_ends_as_an_undisturbed_one(
    method: str, at: int, data: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(data, tmp_path / "run")
    with monkeypatch.context() as patch:
        interrupted(patch, at, kill, method)
        with pytest.raises(KilledError):
            train_detector(config)
    train_detector(config)
    first, second = state(undisturbed), state(tmp_path / "run")
    for name in ("rows_sha256", "settings"):
        first.pop(name)
        second.pop(name)
    assert same(first, second)
    for name in ("evaluation.json", "gallery/task2-replay.png"):
        assert (undisturbed / name).read_bytes() == (tmp_path / "run" / name).read_bytes()


# In the middle of a task, and at its end, before the evaluation.
@pytest.mark.parametrize("at", [pytest.param(3, marks=pytest.mark.slow), 4])
def test_a_stopped_run_resumes(
    at: int, data: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(data, tmp_path / "run")
    with monkeypatch.context() as patch:
        interrupted(patch, at, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Stopped):
            train_detector(config)
    assert state(tmp_path / "run")["steps"] == at
    train_detector(config)
    assert same(state(undisturbed)["detector"], state(tmp_path / "run")["detector"])
    assert same(state(undisturbed)["results"], state(tmp_path / "run")["results"])


def test_a_complete_run_is_left_alone(
    data: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(undisturbed, tmp_path / "run")
    before = (run / "metrics.jsonl").read_bytes()
    train_detector(tiny(data, run))
    assert "this run is complete; --fresh starts over" in capsys.readouterr().err
    assert (run / "metrics.jsonl").read_bytes() == before


def test_energy_and_evaluation_do_not_change_training(data: Path, undisturbed: Path, tmp_path: Path) -> None:
    config = tiny(data, tmp_path / "run", energy=EnergyConfig(enabled=False, scenes=2), test_scenes=1)
    config = replace(config, log=LogConfig(every=5, images_every=0, gallery=0), checkpoint=CheckpointConfig(every=100))
    train_detector(config)
    assert same(state(undisturbed)["detector"], state(tmp_path / "run")["detector"])
    assert load_detector(tmp_path / "run").test is None


def test_another_place_of_the_same_cutouts_resumes_and_others_do_not(
    data: Path, undisturbed: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(undisturbed, tmp_path / "run")
    moved = shutil.copytree(data.parent, tmp_path / "moved") / data.name
    train_detector(tiny(moved, run))
    pixels = np.asarray(Image.open(moved / "disk" / "0.png")).copy()
    pixels[15, 15] = 77
    Image.fromarray(pixels).save(moved / "disk" / "0.png")
    with pytest.raises(UserError, match="the cut-outs of .* or the tasks are not those that the run began with"):
        train_detector(tiny(moved, run))


def test_other_settings_are_another_run(data: Path, undisturbed: Path, tmp_path: Path) -> None:
    run = shutil.copytree(undisturbed, tmp_path / "run")
    with pytest.raises(UserError, match=r"clustering.weight: 0.005 → 0.5"):
        train_detector(tiny(data, run, clustering=ClusteringConfig(0.5)))
    tasks = tmp_path / "tasks.yaml"
    tasks.write_text("tasks: [[disk, bar], [frame]]\nunknown: [cross]\n")
    with pytest.raises(UserError, match=r"tasks_sha256: "):
        train_detector(tiny(data, run, tasks=tasks))
    assert read_config(run / "config.yaml").clustering.weight == 0.005


def test_the_report_on_runs_leaves_a_detector_out(undisturbed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"^no run below [^\n]* but of detectors: name runs of other kinds$"):
        run_directories([undisturbed.parent])
    assert "run is left out: a detector's report is its gallery and evaluation.json" in capsys.readouterr().err


def test_a_folder_needs_tasks(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^tasks must name a YAML file for .*, such as one with `tasks: \[\[cat, dog"):
        train_detector(tiny(data, tmp_path / "run", tasks=None))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_it_learns_shapes(data: Path, tmp_path: Path) -> None:
    """A disk and a bar of different colors, on plain backgrounds: easy enough for a few hundred steps.

    What the second task makes the detector forget comes back with the exemplars.
    """
    config = tiny(
        data,
        tmp_path / "run",
        steps=400,
        batch_size=4,
        test_scenes=60,
        detector=DetectorConfig(width=0.25, head=HeadConfig(hidden=64)),
        scenes=ScenesConfig(size=64, smallest=20, largest=32, most=2, background="plain"),
        labeling=LabelingConfig(),
        objectives=ObjectivesConfig(OpenWorldConfig(margin=5.0, burn_in=200, every=20)),
        exemplars=ExemplarsConfig(per_class=20, steps=200),
        checkpoint=CheckpointConfig(every=200),
        log=LogConfig(every=50, images_every=0),
    )
    results = json.loads((train_detector(config) / "evaluation.json").read_text())
    assert results["task1"]["without_energy/map"] > 0.8
    assert results["task2"]["without_energy/map_previous"] < 0.3
    assert results["task2-replay"]["without_energy/map_previous"] > 0.5
    assert results["task2-replay"]["without_energy/map_current"] > 0.5
