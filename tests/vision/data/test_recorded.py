"""Stacks of recorded frames as an image set: frames that encode their position, and runs compared with each other."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from curl_rl.artifacts.encoder_file import load_encoder
from curl_rl.encoders import EncoderConfig
from curl_rl.objectives import DeepClusterConfig, MoCoConfig, ObjectiveConfigs
from curl_rl.pretraining.config import BackboneConfig, CheckpointConfig, LogConfig, OptimizerConfig
from curl_rl.recordings import store as frames_module
from curl_rl.recordings.store import FrameWriter, Recording
from curl_rl.runs import checkpoint
from curl_rl.runs.errors import UserError
from curl_rl.runs.logger import read_metrics
from curl_rl.runs.signals import Stopped
from curl_rl.vision.config import ComputeConfig, FramesConfig, VisionConfig
from curl_rl.vision.data import image_sets, load
from curl_rl.vision.data.image_sets import ImageBatch
from curl_rl.vision.data.recorded import RecordedStacks, load_stacks
from curl_rl.vision.pretraining import Pretrainer, pretrain
from curl_rl.vision.views import AugmentConfig

SIDE, LENGTHS = 8, (4, 6, 3, 5, 6, 2)
HELD_OUT = 4  # the fifth episode


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames_module, "SHARD_FRAMES", 7)


def write(folder: Path, lengths: tuple[int, ...] = LENGTHS, noisy: bool = False) -> Path:
    """Frames whose every pixel is 10 · episode + step; or noise, so that frames differ in more than brightness."""
    names = ("step",)
    writer = FrameWriter(folder, Recording("tiny-reach", SIDE, 1, "fast", 5, "random", names, action_size=1))
    generator = np.random.default_rng(0)
    for number, length in enumerate(lengths):
        frames = [np.full((3, SIDE, SIDE), 10 * number + step, np.uint8) for step in range(length)]
        if noisy:
            frames = [generator.integers(0, 256, (3, SIDE, SIDE)).astype(np.uint8) for _ in range(length)]
        moments = [np.array([step], np.float64) for step in range(length)]
        writer.add_episode(
            frames, moments, [np.full(1, 1 + 10 * number + step, np.float32) for step in range(length)], [0.0] * length
        )
    writer.flush()
    return folder


def codes(stacks: torch.Tensor) -> list[list[int]]:
    pixels = stacks.unflatten(1, (-1, 3))
    assert (pixels == pixels[:, :, :1, :1, :1]).all()
    found: list[list[int]] = pixels[:, :, 0, 0, 0].tolist()
    return found


def expected(held_out: bool, stack: int, offset: int = 0) -> list[list[int]]:
    return [
        [10 * number + max(min(step + offset, length - 1) - back, 0) for back in reversed(range(stack))]
        for number, length in enumerate(LENGTHS)
        if (number == HELD_OUT) == held_out
        for step in range(length)
    ]


@pytest.mark.parametrize("storage", ["memory", "stream"])
def test_stacks_of_either_split_in_memory_or_streamed(tmp_path: Path, storage: Any) -> None:
    folder = write(tmp_path / "data")
    for split, held_out in (("train", False), ("test", True)):
        for stack in (1, 3):
            images = load_stacks(folder, split, stack=stack, storage=storage)  # type: ignore[arg-type]
            assert (images.channels, images.size, images.classes) == (3 * stack, SIDE, ())
            wanted = expected(held_out, stack)
            assert len(images) == len(wanted)
            found: list[list[int]] = []
            for batch in images.batches(3, shuffle=False, drop_last=False):
                assert batch.labels is None
                assert not batch.later
                assert batch.actions is None
                assert batch.images.dtype == torch.uint8
                found += codes(batch.images)
            assert found == wanted
            # In the same order as any other set, given by the batch's indices.
            for batch in images.batches(4, seed=2, epoch=1):
                assert codes(batch.images) == [wanted[index] for index in batch.indices.tolist()]


@pytest.mark.parametrize("storage", ["memory", "stream"])
def test_a_later_observation_stays_in_its_episode(tmp_path: Path, storage: Any) -> None:
    alone = load_stacks(write(tmp_path / "data"), storage=storage)
    images = alone.ahead((2, 4))
    (batch,) = images.batches(len(images), shuffle=False)
    assert codes(batch.images) == expected(False, 3)
    assert set(batch.later) == {2, 4}
    for offset in (2, 4):
        assert codes(batch.later[offset]) == expected(False, 3, offset=offset)
    (batch,) = alone.batches(len(alone), shuffle=False)
    assert not batch.later


@pytest.mark.parametrize("storage", ["memory", "stream"])
def test_actions_are_those_from_the_observation_on_and_zero_after_the_episode(tmp_path: Path, storage: Any) -> None:
    images = load_stacks(write(tmp_path / "data"), storage=storage).ahead((1,), actions=3)
    assert images.action_dim == 1
    (batch,) = images.batches(len(images), shuffle=False)
    assert batch.actions is not None
    assert batch.actions.shape == (len(images), 3, 1)
    # Each action is 1 + 10 · episode + step, including that of an episode's last frame.
    assert batch.actions[:, :, 0].tolist() == [
        [1 + 10 * number + step + k if step + k < length else 0 for k in range(3)]
        for number, length in enumerate(LENGTHS)
        if number != HELD_OUT
        for step in range(length)
    ]


def test_frames_too_large_for_memory_are_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, size = write(tmp_path / "data"), sum(LENGTHS) * 3 * SIDE * SIDE
    for free, resident in ((4 * size, True), (4 * size - 4, False)):
        monkeypatch.setattr(image_sets, "available_memory", lambda free=free: free)
        assert (load_stacks(folder)._pixels is not None) == resident
    monkeypatch.setattr(image_sets, "available_memory", lambda: size - 1)
    with pytest.raises(UserError, match=r"storage memory: 26 frames of 8×8 take .*use compute.storage stream"):
        load_stacks(folder, storage="memory")


def test_unusable_folders_are_refused(tmp_path: Path) -> None:
    one = write(tmp_path / "one", (5,))
    assert len(load_stacks(one)) == 5
    with pytest.raises(UserError, match="only one episode, so none is held out"):
        load_stacks(one, "test")
    with pytest.raises(UserError, match="has 1 observations, but at least 2 are needed"):
        load_stacks(write(tmp_path / "least", (1,)))
    with pytest.raises(UserError, match=r"frames.stack must be at least 1, got 0"):
        load_stacks(one, stack=0)
    with pytest.raises(UserError, match="holds recorded frames, which have no classes"):
        load(one)


# ---- pretraining


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("frames") / "data", noisy=True)


def tiny(data: Path, run: Path, method: Any = "curl", **changes: Any) -> VisionConfig:
    config = VisionConfig(
        method=method,
        data=str(data),
        epochs=3,
        batch_size=6,  # 3 steps per epoch of 20 frames; the 6 held-out ones are one batch
        seed=3,
        device="cpu",
        run=run,
        encoder=BackboneConfig("pixel", pixel=EncoderConfig(2, (2,), 4), precision="float32"),
        augment=AugmentConfig(crop="plain", size=6, jitter=0.5, greyscale=0.1),
        objectives=ObjectiveConfigs(moco=MoCoConfig(dim=4, queue=14)),
        optimizer=OptimizerConfig("adamw", lr=1e-2, lr_scaling="none"),
        checkpoint=CheckpointConfig(every=4),
        log=LogConfig(every=2, images_every=4, projector=5),
        compute=ComputeConfig(threads=1),
    )
    return replace(config, **changes)


def rows(run: Path) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in row.items() if name != "wall_time" and not name.startswith("speed/")}
        for row in read_metrics(run / "metrics.jsonl", "images")
    ]


def weights(run: Path) -> dict[str, torch.Tensor]:
    found = checkpoint.load_newest(run / "checkpoints", read_only=True)
    assert found is not None
    networks: dict[str, torch.Tensor] = found[1]["learner"]["networks"]
    return networks


@pytest.mark.parametrize(("method", "offset"), [("curl", 0), ("moco", 2), ("byol", 0)])
def test_a_stopped_run_on_frames_resumes_to_the_last_bit(
    data: Path, tmp_path: Path, method: str, offset: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = FramesConfig(stack=2, positive_offset=offset)
    alone = pretrain(tiny(data, tmp_path / "alone", method, frames=frames))
    config = tiny(data, tmp_path / "stopped", method, frames=frames)
    original = Pretrainer.step

    def step(self: Pretrainer, batch: ImageBatch) -> None:
        original(self, batch)
        if self.learner.steps == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Pretrainer, "step", step)
        with pytest.raises(Stopped):
            pretrain(config)
    # From the files this time: the storage changes nothing.
    pretrain(replace(config, compute=ComputeConfig(threads=1, storage="stream")))
    assert all(torch.equal(value, weights(alone)[name]) for name, value in weights(config.directory).items())
    assert rows(config.directory) == rows(alone)


def test_the_log_and_the_files_of_a_run_on_frames(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = pretrain(tiny(data, tmp_path / "run"))
    said = capsys.readouterr().err
    assert "nearest neighbors" not in said
    assert "epoch    3: loss" in said
    assert f"done: 3 epochs; the encoder is {run}/encoder.safetensors" in said
    reported = rows(run)
    assert not any("knn/accuracy" in row or "probe/accuracy" in row for row in reported)
    assert [row["images"] for row in reported if "test/loss" in row] == [18, 36, 54]
    assert {"test/objective/accuracy", "test/objective/logits_std"} <= next(
        r for r in reported if "test/loss" in r
    ).keys()
    assert (run / "projector_config.pbtxt").is_file()
    saved = load_encoder(run)
    assert (saved.features, saved.rendered_size) == (4, SIDE)
    assert saved(torch.zeros(2, 9, SIDE, SIDE, dtype=torch.uint8)).shape == (2, 4)
    software = {"curl_rl", "torch", "revision"}
    assert {name: value for name, value in saved.provenance.items() if name not in software} == {
        "run": "/".join(run.parts[-3:]),
        "data": "/".join(data.parts[-3:]),
        "method": "curl",
        "preset": "digits",
        "seed": 3,
        "env": "tiny-reach",
        "policy": "random",
        "recorded_frames": 26,
        "action_repeat": 1,
        "stack": 3,
        "epochs": 3.0,
    }


def test_measuring_on_held_out_episodes_changes_nothing_that_is_learned(data: Path, tmp_path: Path) -> None:
    for method in ("moco", "byol"):  # with a queue, and with batch norm in its heads
        runs = []
        for every in (0, 1):
            config = tiny(data, tmp_path / f"{method}{every}", method, frames=FramesConfig(test_every=every))
            runs.append(pretrain(config))
        silent, measured = (weights(run) for run in runs)
        assert all(torch.equal(value, silent[name]) for name, value in measured.items())
        assert not any("test/loss" in row for row in rows(runs[0]))


def test_a_method_with_a_row_per_training_frame_is_not_measured_on_others(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ObjectiveConfigs(deepcluster=DeepClusterConfig(clusters=4, dim=4))
    run = pretrain(tiny(data, tmp_path / "run", "deepcluster", objectives=settings))
    assert "no measurement on held-out episodes: deepcluster knows the training frames only" in capsys.readouterr().err
    assert not any("test/loss" in row for row in rows(run))
    assert sum("clusters/used" in row for row in rows(run)) == 3


def test_an_unchanged_network_measures_the_same_in_every_epoch(data: Path, tmp_path: Path) -> None:
    config = tiny(data, tmp_path / "run", optimizer=OptimizerConfig("sgd", lr=1e-30, weight_decay=0.0))
    losses = [row["test/loss"] for row in rows(pretrain(config)) if "test/loss" in row]
    assert losses == [losses[0]] * 3


def test_a_later_observation_is_the_second_view(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "counted")
    seen: list[tuple[torch.Tensor, list[torch.Tensor]]] = []
    original = Pretrainer.step

    def step(self: Pretrainer, batch: ImageBatch) -> None:
        original(self, batch)
        assert self.newest is not None
        seen.append((batch.images, list(self.newest[1].values())))

    monkeypatch.setattr(Pretrainer, "step", step)
    plain = AugmentConfig(crop="plain", size=6, jitter=0, greyscale=0)
    pretrain(tiny(folder, tmp_path / "run", frames=FramesConfig(positive_offset=1), augment=plain, epochs=1))
    for images, views in seen:
        (first, second) = (codes((view * 255).round().int()) for view in views)
        assert first == codes(images)
        for before, after in zip(first, second, strict=True):
            number, step_now = divmod(before[-1], 10)
            assert after[-1] == 10 * number + min(step_now + 1, LENGTHS[number] - 1)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"augment": AugmentConfig(size=6, randaugment=1)}, "augment.randaugment 1 takes single images, not stacks"),
        ({"augment": AugmentConfig(size=9)}, "augment.size 9 is larger than the images of .*, which are 8×8"),
        ({"image_size": 6}, "image_size 6 is not the size of the recorded frames, which are 8×8 and are not scaled"),
        ({"batch_size": 21}, "batch_size 21 is larger than .*, which has 20 images"),
    ],
)
def test_what_does_not_fit_frames_is_refused_before_anything_is_written(
    data: Path, tmp_path: Path, changes: dict[str, Any], line: str
) -> None:
    with pytest.raises(UserError, match=line) as refused:
        pretrain(replace(tiny(data, tmp_path / "run"), **changes))
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_one_episode_trains_and_reports_what_it_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path / "data", (12,), noisy=True)
    run = pretrain(tiny(folder, tmp_path / "run", epochs=1))
    assert "no measurement on held-out episodes: " in capsys.readouterr().err
    assert not any("test/loss" in row for row in rows(run))


@pytest.mark.parametrize(("stack", "offset"), [(0, 0), (1, -1)])
def test_settings_of_frames_out_of_range(stack: int, offset: int) -> None:
    with pytest.raises(ValueError, match="frames.(stack|positive_offset) must be"):
        FramesConfig(stack=stack, positive_offset=offset)


def test_frames_are_an_image_set(data: Path) -> None:
    assert isinstance(load_stacks(data), RecordedStacks)
    with pytest.raises(UserError, match="labels are needed, but .* has none"):
        load_stacks(data).required_labels()
