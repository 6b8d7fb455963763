"""What a resumed pretraining run may change, the place of its images included, and what is refused at the start."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from curl_rl.encoders.resnet import ResNetConfig
from curl_rl.pretraining.config import BackboneConfig, CheckpointConfig, LogConfig, OptimizerConfig
from curl_rl.pretraining.trainer import Pretrainer
from curl_rl.runs import checkpoint
from curl_rl.runs.errors import UserError
from curl_rl.runs.signals import Stopped
from curl_rl.vision.config import ComputeConfig, KNNConfig, VisionConfig, read_config
from curl_rl.vision.pretraining import pretrain
from curl_rl.vision.views import AugmentConfig
from helpers.image_folders import make_classes


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images") / "data"
    for part in ("train", "test"):
        make_classes(folder / part, cat=6, dog=7)
    return folder


def tiny(data: Path | str, run: Path, **changes: Any) -> VisionConfig:
    config = VisionConfig(
        method="simclr",
        data=str(data),
        epochs=3,
        batch_size=6,
        seed=3,
        device="cpu",
        run=run,
        encoder=BackboneConfig(resnet=ResNetConfig(width=1 / 16, stem="small"), precision="float32"),
        augment=AugmentConfig(size=6),
        optimizer=OptimizerConfig("adamw", lr=1e-3, lr_scaling="none", warmup_epochs=0.5),
        knn=KNNConfig(every=2, k=5),
        checkpoint=CheckpointConfig(every=4),
        log=LogConfig(every=2, images_every=0, projector=0),
        compute=ComputeConfig(threads=1, workers=0),
    )
    return replace(config, **changes)


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrain(tiny(data, tmp_path_factory.mktemp("undisturbed") / "run"))


def weights(run: Path) -> dict[str, torch.Tensor]:
    found = checkpoint.load_newest(run / "checkpoints", read_only=True)
    assert found is not None
    networks: dict[str, torch.Tensor] = found[1]["learner"]["networks"]
    return networks


def same_weights(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def stopped(config: VisionConfig, step: int = 3) -> None:
    """Trains until a signal after this step."""
    original = Pretrainer.step

    def stopping(self: Pretrainer, batch: Any) -> None:
        original(self, batch)
        if self.learner.steps == step:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pretrainer, "step", stopping)
        with pytest.raises(Stopped):
            pretrain(config)


OTHER_SCHEDULES: list[dict[str, Any]] = [
    {"knn": KNNConfig(every=0, k=5)},
    {"knn": KNNConfig(every=1, k=5), "checkpoint": CheckpointConfig(every=1, keep=1)},
    {"compute": ComputeConfig(threads=1, workers=0, storage="stream"), "log": LogConfig(every=1, projector=3)},
]


@pytest.mark.parametrize("change", OTHER_SCHEDULES)
def test_a_run_resumes_with_another_schedule_and_the_same_weights(
    data: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any]
) -> None:
    assert same_weights(pretrain(tiny(data, tmp_path / "whole", **change)), undisturbed)
    stopped(tiny(data, tmp_path / "run"))
    capsys.readouterr()
    assert same_weights(pretrain(tiny(data, tmp_path / "run", **change)), undisturbed)
    written = read_config(tmp_path / "run" / "config.yaml")
    assert all(getattr(written, section) == value for section, value in change.items())
    (line,) = (tmp_path / "run" / "changes.jsonl").read_text().splitlines()
    recorded = json.loads(line)
    assert recorded["images"] == 3 * 6
    assert {name.split(".")[0] for name in recorded["changed"]} == change.keys()
    assert capsys.readouterr().err.count("resumed with other settings: ") == 1


@pytest.mark.parametrize("change", [{"epochs": 4}, {"knn": KNNConfig(every=1, k=4)}, {"batch_size": 5}])
def test_what_changes_the_weights_or_the_meaning_of_results_is_refused(
    data: Path, undisturbed: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    run = shutil.copytree(undisturbed, tmp_path / "run")
    with pytest.raises(UserError, match=r"other settings \((epochs: 3|knn.k: 5|batch_size: 6) → .*--fresh\Z"):
        pretrain(tiny(data, run, **change))


def moved(data: Path, to: Path) -> str:
    shutil.copytree(data, to / "new place" / "data")
    return str(to / "new place" / "data")


def linked(data: Path, to: Path) -> str:
    (to / "link").symlink_to(data)
    return str(to / "link")


def relative(data: Path, to: Path) -> str:
    return os.path.relpath(data, to)


def by_detour(data: Path, to: Path) -> str:
    return f"{data.parent}/../{data.parent.name}/{data.name}/"


@pytest.mark.parametrize("spelled", [moved, linked, relative, by_detour])
def test_a_run_resumes_with_its_images_at_another_path(
    data: Path,
    undisturbed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    spelled: Callable[[Path, Path], str],
) -> None:
    stopped(tiny(data, tmp_path / "run"))
    capsys.readouterr()
    monkeypatch.chdir(tmp_path)
    place = spelled(data, tmp_path)
    run = pretrain(tiny(place, tmp_path / "run"))
    assert same_weights(run, undisturbed)
    written = read_config(run / "config.yaml").data
    assert os.path.isabs(written)
    assert os.path.samefile(written, place)
    # Only another place is a change worth a line, another spelling is not.
    assert (f"data: {data} → " in capsys.readouterr().err) == (spelled is moved)
    assert (run / "changes.jsonl").exists() == (spelled is moved)


def test_other_images_at_another_path_are_refused_and_the_settings_stay(data: Path, tmp_path: Path) -> None:
    stopped(tiny(data, tmp_path / "run"))
    other = Path(moved(data, tmp_path))
    (other / "train" / "cat" / "00.png").rename(other / "train" / "dog" / "99.png")
    before = (tmp_path / "run" / "config.yaml").read_bytes()
    with pytest.raises(UserError, match="as many images as when this run was saved, but not the same ones"):
        pretrain(tiny(other, tmp_path / "run"))
    assert (tmp_path / "run" / "config.yaml").read_bytes() == before
    assert not (tmp_path / "run" / "changes.jsonl").exists()


# ---- before anything is made or set aside


@pytest.mark.parametrize("fresh", [False, True])
def test_a_warm_up_that_rounds_up_to_the_whole_run_is_refused(
    data: Path, undisturbed: Path, tmp_path: Path, fresh: bool
) -> None:
    # Two steps an epoch: 0.8 epochs are two steps, rounded.
    config = tiny(data, tmp_path / "run", epochs=1)
    config = replace(config, optimizer=replace(config.optimizer, warmup_epochs=0.8))
    if fresh:
        shutil.copytree(undisturbed, tmp_path / "run")
    line = r"\Aoptimizer.warmup_epochs must be shorter than the run, got 0.8, which is 2 of 2 steps: set it to 0.5 or"
    with pytest.raises(UserError, match=line):
        pretrain(config, fresh=fresh)
    assert [path.name for path in tmp_path.iterdir()] == (["run"] if fresh else [])
    advised = replace(config, optimizer=replace(config.optimizer, warmup_epochs=0.5))
    pretrain(advised, fresh=fresh)


def test_a_disk_without_room_is_noticed_before_a_run_is_set_aside(
    data: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(undisturbed, tmp_path / "run")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    with pytest.raises(
        UserError, match=r"has 0.0 kB free, .* need [0-9.]+ MB: free some space, lower checkpoint.keep,"
    ):
        pretrain(tiny(data, run), fresh=True)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_command_that_a_run_prints_can_be_pasted(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = pretrain(tiny(data, tmp_path / "my run's", epochs=1, knn=KNNConfig(every=0)))
    found = re.search(r"evaluate it with: (.*)", capsys.readouterr().err)
    assert found is not None
    assert shlex.split(found[1]) == ["python", "scripts/evaluate_vision.py", str(run)]
