"""The loop on a folder of tiny images: schedules counted by hand, provoked faults and signals.

The oracle for every resumed run is an uninterrupted one: weights, optimizer, queue and rows of metrics must be the same
to the last bit.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from curl_rl.artifacts.encoder_file import load_encoder
from curl_rl.encoders import EncoderConfig
from curl_rl.encoders.resnet import ResNet, ResNetConfig
from curl_rl.objectives import (
    BYOLConfig,
    DeepClusterConfig,
    MoCoConfig,
    ObjectiveConfigs,
    PCLConfig,
    SwAVConfig,
    ViewSpec,
)
from curl_rl.pretraining import learner as learner_module
from curl_rl.pretraining.config import BackboneConfig, CheckpointConfig, LogConfig, OptimizerConfig
from curl_rl.pretraining.learner import Learner
from curl_rl.runs import checkpoint
from curl_rl.runs.errors import TrainingFault, UserError
from curl_rl.runs.logger import read_metrics
from curl_rl.runs.signals import Stopped
from curl_rl.vision import pretraining, source
from curl_rl.vision.config import ComputeConfig, KNNConfig, VisionConfig, read_config
from curl_rl.vision.data import load
from curl_rl.vision.data.image_sets import ImageBatch
from curl_rl.vision.pretraining import Pretrainer, image_pretrainer, pretrain, source_of
from curl_rl.vision.views import AugmentConfig

SIDE, TRAIN, BATCH, EPOCHS = 8, 23, 6, 3
STEPS_PER_EPOCH = 3  # of 6 images; 5 are left over
WITH_BANKS = ("moco", "swav", "deepcluster", "instdisc", "pcl", "cmc")
METHODS = (*WITH_BANKS, "simclr", "byol", "simsiam", "barlow", "curl", "supcon")
OBJECTIVES = ObjectiveConfigs(
    moco=MoCoConfig(dim=4, queue=14),
    swav=SwAVConfig(prototypes=8, dim=4, frozen_steps=4, queue=8, queue_after=3),
    deepcluster=DeepClusterConfig(clusters=4, dim=4),
    pcl=PCLConfig((3, 4), warmup_epochs=1, dim=4, queue=14),
)


def draw(folder: Path, count: int, label: int, first: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        pixels = np.random.default_rng([label, number]).integers(0, 256, (SIDE, SIDE, 3)) // (label + 1)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:03d}.png")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for label, name in enumerate(("bright", "dark")):
        draw(folder / "train" / name, TRAIN // 2 + label, label)
        draw(folder / "test" / name, 4, label, first=100)
    return folder


def tiny(data: Path, run: Path, method: Any = "moco", **changes: Any) -> VisionConfig:
    config = VisionConfig(
        method=method,
        data=str(data),
        epochs=EPOCHS,
        batch_size=BATCH,
        seed=3,
        device="cpu",
        run=run,
        encoder=BackboneConfig(
            resnet=ResNetConfig(width=1 / 16, stem="small"),
            split="lab" if method == "cmc" else "none",
            precision="float32",
        ),
        augment=AugmentConfig(size=SIDE, views=1 if method in ("cmc", "instdisc") else 2),
        objectives=OBJECTIVES,
        optimizer=OptimizerConfig("adamw", lr=1e-3, lr_scaling="none", warmup_epochs=0.5),
        knn=KNNConfig(every=2, k=5),
        checkpoint=CheckpointConfig(every=4),
        log=LogConfig(every=2, images_every=4, projector=5),
        compute=ComputeConfig(threads=1),
    )
    return replace(config, **changes)


def at_step(monkeypatch: pytest.MonkeyPatch, number: int, happening: Any) -> None:
    """Calls ``happening`` after that step."""
    original = Pretrainer.step

    def step(self: Pretrainer, batch: ImageBatch) -> None:
        original(self, batch)
        if self.learner.steps == number:
            happening()

    monkeypatch.setattr(Pretrainer, "step", step)


def state(run: Path) -> dict[str, Any]:
    found = checkpoint.load_newest(run / "checkpoints", read_only=True)
    assert found is not None
    return found[1]


def rows(run: Path) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in row.items() if name != "wall_time" and not name.startswith("speed/")}
        for row in read_metrics(run / "metrics.jsonl", "images")
    ]


def equal(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(equal, first, second))
    return bool(first == second)


@pytest.mark.parametrize("method", ["byol", "simsiam", "swav", "deepcluster"])
def test_local_views_are_smaller_and_learned_from(
    data: Path, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[tuple[int, ...]]] = []
    original = Learner.step

    def step(self: Learner, views: dict[ViewSpec, torch.Tensor], *rest: Any, **named: Any) -> Any:
        seen.append([tuple(view.shape) for view in views.values()])
        return original(self, views, *rest, **named)

    monkeypatch.setattr(Learner, "step", step)
    config = tiny(data, tmp_path / "run", method, epochs=1)
    config = replace(config, augment=AugmentConfig(size=SIDE, local_views=2, local_size=5))
    with pytest.raises(UserError, match=rf"must add up to 2, .* \(see objectives.{method}.local_views\)"):
        pretrain(config)
    own = replace(getattr(config.objectives, method), local_views=2)
    pretrain(replace(config, objectives=replace(config.objectives, **{method: own})))
    assert seen == [[(BATCH, 3, SIDE, SIDE)] * 2 + [(BATCH, 3, 5, 5)] * 2] * STEPS_PER_EPOCH


METHOD_SETTINGS: dict[str, Any] = {
    "moco, symmetric": ObjectiveConfigs(moco=MoCoConfig(dim=4, queue=14, symmetric=True)),
    "moco, v3": ObjectiveConfigs(moco=MoCoConfig(version="v3", dim=4)),
}


@pytest.mark.parametrize("method", [*METHODS, *METHOD_SETTINGS])
def test_a_step_never_waits_for_the_device(
    data: Path, tmp_path: Path, method: str, no_host_sync: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Views, learning, metrics; without the probe, whose Adam counts its steps on the host, as the schedule does."""
    monkeypatch.setattr(learner_module, "warmup_cosine", lambda *_: 0.5)
    config = tiny(data, tmp_path / "run", method.split(",")[0])
    config = replace(config, objectives=METHOD_SETTINGS.get(method, config.objectives))
    config = replace(config, optimizer=OptimizerConfig("sgd", lr=1e-3, lr_scaling="none", warmup_epochs=0.5))
    images = load(config.data, "train", SIDE)
    (tmp_path / "run").mkdir()
    pretrainer = image_pretrainer(config, torch.device("cpu"), source_of(config, images))
    pretrainer.probe = None
    for number, batch in enumerate(images.batches(BATCH, seed=3)):
        # The first step makes the optimizers' state, and the metrics'.
        with no_host_sync() if number else contextlib.nullcontext():
            pretrainer.step(batch)
    pretrainer.close()


def test_small_local_views_may_leave_split_batch_norm_a_single_value(tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    for number in range(8):
        Image.new("RGB", (16, 16), (20 * number, 0, 0)).save(tmp_path / "flat" / f"{number}.png")
    config = tiny(tmp_path / "flat", tmp_path / "run", "byol", epochs=1, knn=KNNConfig(every=0))
    resnet = ResNetConfig(width=1 / 16, stem="small", batch_norm_splits=6)
    config = replace(
        config,
        encoder=BackboneConfig(resnet=resnet, precision="float32"),
        objectives=ObjectiveConfigs(byol=BYOLConfig(local_views=1)),
    )
    # The last feature map has four positions for 16 pixels, one for 8.
    with pytest.raises(UserError, match="batch_norm_splits 6 leaves batch norm a single value"):
        pretrain(replace(config, augment=AugmentConfig(size=16, local_views=1, local_size=8)))
    assert not (tmp_path / "run").exists()
    pretrain(replace(config, augment=AugmentConfig(size=16, local_views=1, local_size=16)))


def test_a_network_with_group_norm_is_trained_and_saved_as_such(data: Path, tmp_path: Path) -> None:
    resnet = ResNetConfig(width=1 / 16, stem="small", norm="group")
    pretrain(tiny(data, tmp_path / "run", epochs=1, encoder=BackboneConfig(resnet=resnet, precision="float32")))
    loaded = load_encoder(tmp_path / "run").encoder
    assert isinstance(loaded, ResNet)
    assert loaded.config == resnet


def test_each_process_draws_views_of_its_own_and_all_the_same_order(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[torch.Tensor, torch.Tensor]] = []

    def step(_: Learner, views: dict[ViewSpec, torch.Tensor], __: Any, order: torch.Tensor, **named: Any) -> Any:
        drawn.append((views[ViewSpec(0)], order))
        return {}, views[ViewSpec(0)].flatten(1)

    monkeypatch.setattr(Learner, "step", step)
    monkeypatch.setattr(pretraining.distributed, "gather", lambda shard, total: torch.cat([shard, shard]))
    config = tiny(data, tmp_path / "run")
    (tmp_path / "run").mkdir()
    images = load(config.data, "train", SIDE)
    pretrainer = image_pretrainer(config, torch.device("cpu"), source_of(config, images))
    pretrainer.probe = None
    (batch, *_) = images.batches(BATCH, rank=0, world_size=2)
    monkeypatch.setattr(pretraining.distributed, "world_size", lambda: 2)
    for rank in (0, 1, 0):
        monkeypatch.setattr(pretraining.distributed, "rank", lambda rank=rank: rank)
        pretrainer.step(batch)
    pretrainer.close()
    (first, order), (second, same), (again, _) = drawn
    assert not torch.equal(first, second), "the same images, in another process"
    assert torch.equal(order, same)
    assert torch.equal(first, again)


def test_a_fault_is_reported_by_the_process_in_which_it_occurred(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = pretraining.distributed.raised_together
    calls: list[type[Exception]] = []

    @contextlib.contextmanager
    def elsewhere(kind: type[Exception]) -> Any:
        calls.append(kind)
        with written(kind):
            yield
        if kind is OSError and len(calls) == 4:
            raise OSError(pretraining.distributed.ELSEWHERE.format("no space left"))

    monkeypatch.setattr(pretraining.distributed, "raised_together", elsewhere)
    with pytest.raises(TrainingFault, match=r"stopped at epoch 1.33 \(step 4\): another process has failed"):
        pretrain(tiny(data, tmp_path / "run"))
    assert not (tmp_path / "run" / "fault.txt").exists()
    assert calls == [UserError] * 3 + [OSError]


@pytest.mark.parametrize("change", ["renamed", "another class", "classes at last"])
def test_a_run_resumes_only_with_the_same_images(data: Path, tmp_path: Path, change: str) -> None:
    folder = tmp_path / "data"
    if change == "classes at last":
        draw(folder / "train", TRAIN, 0)
    else:
        shutil.copytree(data, folder)
    pretrain(tiny(folder, tmp_path / "run", epochs=1))
    first = sorted((folder / "train").rglob("*.png"))[0]
    if change == "renamed":
        first.rename(first.with_name("zzz.png"))
    elif change == "another class":
        first.rename(folder / "train" / "dark" / "zzz.png")
    else:
        for number, path in enumerate(sorted((folder / "train").glob("*.png"))):
            (folder / "train" / "ab"[number % 2]).mkdir(exist_ok=True)
            path.rename(folder / "train" / "ab"[number % 2] / path.name)
    newest = max((tmp_path / "run" / "checkpoints").iterdir())
    before = newest.read_bytes()
    with pytest.raises(UserError, match="not the same ones .renaming one or moving it to another class"):
        pretrain(tiny(folder, tmp_path / "run", epochs=1))
    assert newest.read_bytes() == before


# ---- a run from beginning to end


@pytest.mark.parametrize("method", METHODS)
def test_a_stopped_run_resumes_to_the_last_bit(
    data: Path, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = pretrain(tiny(data, tmp_path / "alone", method))
    config = tiny(data, tmp_path / "stopped", method)
    with monkeypatch.context() as patch:
        # In the middle of the second epoch, and of two rows of the log.
        at_step(patch, 5, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Stopped) as stopped:
            pretrain(config)
    assert stopped.value.exit_code == 143
    assert state(config.directory)["learner"]["steps"] == 5
    torch.manual_seed(99)  # random numbers drawn in between must not matter
    pretrain(config)
    assert equal(state(config.directory), state(alone))
    assert rows(config.directory) == rows(alone)


def test_a_killed_run_goes_back_to_its_checkpoint(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = pretrain(tiny(data, tmp_path / "alone"))
    config = tiny(data, tmp_path / "killed")

    def kill() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        at_step(patch, 7, kill)
        with pytest.raises(KeyboardInterrupt):
            pretrain(config)
    assert state(config.directory)["learner"]["steps"] == 4
    pretrain(config)
    assert equal(state(config.directory), state(alone))
    assert rows(config.directory) == rows(alone)


def test_the_log_and_the_files_of_a_run(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny(data, tmp_path / "run")
    run = pretrain(config)
    printed = capsys.readouterr().err
    assert "epoch    2: 5 nearest neighbors classify" in printed
    assert "done: 3 epochs" in printed
    assert read_config(run / "config.yaml") == config
    # 9 steps: a row at every second, nearest neighbors after the second epoch (6 steps) and the last.
    reported = rows(run)
    assert [row["images"] for row in reported if "loss" in row] == [12, 24, 36, 48, 54]
    assert [row["images"] for row in reported if "knn/accuracy" in row] == [36, 54]
    # The probe on the test images, by hand: bright ones, then dark ones.
    weights = state(run)["probe"]
    bias, weight = weights["classifier.bias"], weights["classifier.weight"]
    test = load(str(data), "test", SIDE)
    (batch,) = test.batches(len(test), shuffle=False)
    answers = (load_encoder(run).encoder.eval()(batch.images) @ weight.T + bias).argmax(1)
    right = (answers == torch.tensor([0] * 4 + [1] * 4)).float().mean().item()
    assert [row["probe/test_accuracy"] for row in reported if "knn/accuracy" in row][-1] == right
    assert {"objective/accuracy", "objective/alignment", "objective/embedding_std", "learning_rate", "momentum",
            "features/effective_rank", "features/uniformity", "probe/accuracy"} <= reported[0].keys()  # fmt: skip
    assert sorted(path.name for path in run.glob("checkpoints/*.ckpt")) == ["0000000048.ckpt", "0000000054.ckpt"]
    assert (run / "projector_config.pbtxt").is_file()
    events = EventAccumulator(str(run))
    events.Reload()
    assert [event.step for event in events.Images("images/views")] == [24, 48]
    assert [event.step for event in events.Scalars("loss")] == [12, 24, 36, 48, 54]

    # The saved encoder is the trained one, including its running statistics.
    saved, trained = load_encoder(run), ResNet((3, SIDE, SIDE), config.encoder.resnet)
    networks = state(run)["learner"]["networks"]
    trained.load_state_dict({k.removeprefix("encoder."): v for k, v in networks.items() if k.startswith("encoder.")})
    images = torch.randint(0, 256, (4, 3, SIDE, SIDE), dtype=torch.uint8)
    assert torch.equal(saved(images), trained.eval()(images))
    provenance = {"data": "/".join(data.parts[-3:]), "method": "moco", "preset": "digits", "seed": 3, "epochs": 3.0}
    assert saved.provenance.items() >= provenance.items()

    pretrain(config)
    assert "this run is complete at 3 epochs" in capsys.readouterr().err
    pretrain(config, fresh=True)
    assert len(list(tmp_path.glob("run.before-*"))) == 1


def test_seeds_differ_and_logging_changes_nothing(data: Path, tmp_path: Path) -> None:
    one = pretrain(tiny(data, tmp_path / "one"))
    silent = replace(tiny(data, tmp_path / "silent"), log=LogConfig(every=100, images_every=0, projector=0))
    other = pretrain(tiny(data, tmp_path / "other", seed=4))
    assert equal(state(one)["learner"], state(pretrain(silent))["learner"])
    assert not equal(state(one)["learner"], state(other)["learner"])
    # Another seed is another network from the start, and sees other views of it.
    assert rows(one)[0]["loss"] != rows(other)[0]["loss"]


def test_a_pixel_encoder_and_images_larger_than_the_views(data: Path, tmp_path: Path) -> None:
    encoder = BackboneConfig(kind="pixel", pixel=EncoderConfig(2, (2,), 4), precision="float32")
    config = tiny(data, tmp_path / "run", "curl", encoder=encoder, augment=AugmentConfig(size=6))
    run = pretrain(config)
    loaded = load_encoder(run)
    assert (loaded.features, loaded.rendered_size) == (4, SIDE)
    # The run's own configuration has the full path of the images; the exported encoder does not.
    assert read_config(run / "config.yaml").data == str(data)
    assert str(data) not in (run / "encoder.json").read_text()
    assert [row["images"] for row in rows(run) if "knn/accuracy" in row] == [36, 54]


def test_a_flat_folder_trains_and_reports_what_it_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw(tmp_path / "flat", 12, 0)
    run = pretrain(tiny(tmp_path / "flat", tmp_path / "run", epochs=2))
    assert "no nearest neighbors during training: " in capsys.readouterr().err
    assert not any("knn/accuracy" in row or "probe/accuracy" in row for row in rows(run))


# ---- mistakes and faults


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"batch_size": 24}, "batch_size 24 is larger than .*, which has 23 images"),
        ({"augment": AugmentConfig(size=9)}, "augment.size 9 is larger than the images of .*, which are 8×8"),
        (
            {
                "method": "byol",
                "encoder": BackboneConfig(kind="pixel", pixel=EncoderConfig(2, (2,), 4)),
                "objectives": ObjectiveConfigs(byol=BYOLConfig(local_views=2)),
                "augment": AugmentConfig(size=8, local_views=2, local_size=5),
            },
            "augment.local_size 5 is not augment.size 8, and a pixel encoder takes images of one size",
        ),
        (
            {
                "method": "byol",
                "encoder": BackboneConfig(resnet=ResNetConfig(width=1 / 16, stem="small", batch_norm_splits=6)),
                "objectives": ObjectiveConfigs(byol=BYOLConfig(local_views=2)),
                "image_size": 8,
                "augment": AugmentConfig(size=8, local_views=2, local_size=8),
            },
            "encoder.resnet.batch_norm_splits 6 leaves batch norm a single value",
        ),
        ({"augment": AugmentConfig(size=8, views=3)}, "augment.views 3 and augment.local_views 0 must add up to 2,"),
        ({"objectives": ObjectiveConfigs(moco=MoCoConfig(queue=5))}, "objectives.moco.queue must be at least 6"),
        ({"data": "/nowhere"}, "no folder /nowhere"),
        (
            {"encoder": BackboneConfig(resnet=ResNetConfig(batch_norm_splits=4))},
            "encoder.resnet.batch_norm_splits 4 must divide batch_size 6",
        ),
        ({"encoder": BackboneConfig("pixel", pixel=EncoderConfig(2, (2, 2, 2)))}, "too small for 3 convolutions"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    data: Path, tmp_path: Path, changes: dict[str, Any], line: str
) -> None:
    with pytest.raises(UserError, match=line) as refused:
        pretrain(replace(tiny(data, tmp_path / "run"), **changes))
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("images", "line"), [(0, "holds no images"), (1, "at least two")])
def test_a_folder_without_enough_images(tmp_path: Path, images: int, line: str) -> None:
    draw(tmp_path / "few", images, 0)
    with pytest.raises(UserError, match=line):
        pretrain(tiny(tmp_path / "few", tmp_path / "run"))


def test_a_run_of_another_method_or_length_is_refused(data: Path, tmp_path: Path) -> None:
    run = pretrain(tiny(data, tmp_path / "run"))
    with pytest.raises(UserError, match=r"belongs to a run with other settings \(method: moco → byol\)"):
        pretrain(tiny(data, run, "byol"))
    with pytest.raises(UserError, match="epochs: 3 → 4"):
        pretrain(tiny(data, run, epochs=4))


def test_added_or_removed_images_are_noticed(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(data, tmp_path / "data")
    config = tiny(tmp_path / "data", tmp_path / "run")
    with monkeypatch.context() as patch:
        at_step(patch, 5, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Stopped):
            pretrain(config)
    draw(tmp_path / "data" / "train" / "dark", 1, 1, first=500)
    with pytest.raises(UserError, match="has 24 images, but had 23 when this run was saved"):
        pretrain(config)


def test_non_finite_values_end_the_run_and_keep_the_checkpoint(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(data, tmp_path / "run")
    original = Pretrainer.step

    def step(self: Pretrainer, batch: ImageBatch) -> None:
        original(self, batch)
        if self.learner.steps == 7:
            self.learner.encoder.conv1.weight.data.fill_(torch.nan)  # type: ignore[operator, union-attr]

    monkeypatch.setattr(Pretrainer, "step", step)
    with pytest.raises(TrainingFault, match=r"stopped at epoch 2.67 \(step 8\): no longer finite: loss"):
        pretrain(config)
    assert state(config.directory)["learner"]["steps"] == 4
    assert (config.directory / "fault.txt").is_file()


def test_a_collapse_is_reported_once(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = source.make_views
    # Black views: all embeddings coincide.
    monkeypatch.setattr(
        source, "make_views", lambda *a, **named: {spec: view * 0 for spec, view in original(*a, **named).items()}
    )
    pretrain(tiny(data, tmp_path / "run", log=LogConfig(every=1, images_every=0)))
    assert capsys.readouterr().err.count("warning: the representation is collapsing") == 1
