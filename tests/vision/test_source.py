"""Images and recorded frames as sources: views by name, needs, and methods that process all samples."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from curl_rl import vision
from curl_rl.artifacts.encoder_file import load_encoder
from curl_rl.encoders import EncoderConfig, ResNet, ResNetConfig
from curl_rl.objectives import CPCConfig, DataSpec, ObjectiveConfigs, ViewSpec
from curl_rl.objectives.method import Method
from curl_rl.pretraining.config import BackboneConfig, CheckpointConfig, LogConfig, OptimizerConfig
from curl_rl.pretraining.learner import Learner
from curl_rl.recordings.store import FrameWriter, Recording
from curl_rl.runs import checkpoint
from curl_rl.runs.errors import UserError
from curl_rl.runs.logger import read_metrics
from curl_rl.vision import pretrain
from curl_rl.vision.config import ComputeConfig, FramesConfig, KNNConfig, VisionConfig
from curl_rl.vision.data import load
from curl_rl.vision.data.image_sets import ResidentImages
from curl_rl.vision.data.recorded import load_stacks
from curl_rl.vision.source import ImageSource, data_of, offered_by
from curl_rl.vision.views import AugmentConfig
from helpers.dummy_objectives import DUMMIES
from helpers.image_folders import make_classes

SIDE = 8
PLAIN = AugmentConfig(crop="plain", size=6, jitter=0, greyscale=0)


@pytest.fixture(autouse=True)
def _dummies(register: Callable[[Method], None]) -> None:
    for method in DUMMIES.values():
        register(method)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven images of each of two classes."""
    root = tmp_path_factory.mktemp("images")
    for label, name in enumerate(("bright", "dark")):
        (root / name).mkdir()
        for number in range(7):
            pixels = np.random.default_rng([label, number]).integers(0, 256, (SIDE, SIDE, 3)) // (label + 1)
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six episodes of five frames; every pixel is 10 · episode + step, every action a hundredth of that."""
    root = tmp_path_factory.mktemp("recorded") / "frames"
    writer = FrameWriter(root, Recording("tiny-reach", SIDE, 1, "fast", 5, "random", ("step",), action_size=2))
    for number in range(6):
        codes = [10 * number + step for step in range(5)]
        pictures = [np.full((3, SIDE, SIDE), code, np.uint8) for code in codes]
        moments = [np.array([step], np.float64) for step in range(5)]
        writer.add_episode(pictures, moments, [np.full(2, code / 100, np.float32) for code in codes], [0.0] * 5)
    writer.flush()
    return root


def tiny(data: Path, run: Path, method: Any, **changes: Any) -> VisionConfig:
    config = VisionConfig(
        method=method,
        data=str(data),
        epochs=2,
        batch_size=4,
        seed=3,
        device="cpu",
        run=run,
        encoder=BackboneConfig("pixel", pixel=EncoderConfig(2, (2,), 4), precision="float32"),
        augment=PLAIN,
        optimizer=OptimizerConfig("sgd", lr=1e-2, lr_scaling="none"),
        knn=KNNConfig(every=0),
        checkpoint=CheckpointConfig(every=100),
        log=LogConfig(every=1, projector=0),
        compute=ComputeConfig(threads=1),
    )
    return replace(config, **changes)


def test_what_a_set_offers(folder: Path, frames: Path) -> None:
    images, flat, recorded = load(folder), load(folder / "dark"), load_stacks(frames)
    assert data_of(images) == DataSpec(count=14, classes=2)
    assert data_of(flat) == DataSpec(count=7)
    assert data_of(recorded) == DataSpec(count=25, action_dim=2)
    always = {"indices", "epochs"}
    assert [offered_by(some) for some in (images, flat, recorded)] == [
        always | {"labels"},
        always,
        always | {"actions"},
    ]


def test_views_of_frames_show_the_moments_named_by_the_method(frames: Path) -> None:
    specs = (ViewSpec(0), ViewSpec(0, future=3), ViewSpec(1, future=1))
    for shift in (0, 1):
        shown = ImageSource(load_stacks(frames, stack=1), PLAIN, specs, positive_offset=shift, actions=3)
        (batch,) = shown.batches(25, seed=0)
        views = shown.views(batch, torch.Generator().manual_seed(0))
        assert list(views) == list(specs)
        codes = batch.images[:, 0, 0, 0]
        last = codes - codes % 10 + 4  # of each episode
        for spec, offset in zip(specs, (0, 3, 1 + shift), strict=True):
            expected = torch.minimum(codes + offset, last).float()
            assert torch.equal((views[spec] * 255).round()[:, 0, 0, 0], expected)
        assert batch.actions is not None
        assert batch.actions.shape == (25, 3, 2)
        assert torch.allclose(batch.actions[:, 0, 0], codes / 100)


def test_single_images_have_no_later_moment() -> None:
    images = ResidentImages("noise", torch.zeros(4, 3, SIDE, SIDE, dtype=torch.uint8))
    with pytest.raises(UserError, match="noise holds single images, but the method compares them with later ones: "):
        ImageSource(images, PLAIN, [ViewSpec(0), ViewSpec(1, future=2)])
    assert ImageSource(images, PLAIN, [ViewSpec(0), ViewSpec(1)]).images is images


def test_everything_yields_every_image_once_in_order(folder: Path, frames: Path) -> None:
    for images in (load(folder), load(folder, storage="stream", workers=0), load_stacks(frames)):
        shown = ImageSource(images, PLAIN, [ViewSpec(0)])
        batches = list(shown.everything(6))
        assert torch.cat([batch.indices for batch in batches]).tolist() == list(range(len(images)))
        assert all(shown.center(batch).shape[-2:] == (6, 6) for batch in batches)
        parts = [list(shown.everything(6, rank=rank, world_size=2)) for rank in range(2)]
        for whole, first, second in zip(batches, *parts, strict=True):
            assert torch.equal(torch.cat([first.indices, second.indices]), whole.indices)
    (batch,) = shown.everything(25)
    assert torch.equal(shown.center(batch), batch.images[:, :, 1:7, 1:7])


def test_a_method_that_predicts_from_actions_trains_on_frames(frames: Path, tmp_path: Path) -> None:
    augment = replace(PLAIN, views=2)
    run = pretrain(tiny(frames, tmp_path / "run", "dynamics", augment=augment, frames=FramesConfig(stack=2)))
    rows = read_metrics(run / "metrics.jsonl", "images")
    assert all(np.isfinite(row["objective/error"]) for row in rows if "loss" in row)
    assert [row["images"] for row in rows if "test/objective/error" in row] == [24, 48]


def test_cpc_predicts_from_actions_on_frames_and_resumes_bit_for_bit(
    frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed within the second epoch."""
    config = tiny(
        frames,
        tmp_path / "whole",
        "cpc",
        augment=replace(PLAIN, views=3),
        objectives=ObjectiveConfigs(cpc=CPCConfig(steps=2, actions=True)),
    )
    whole = pretrain(config)
    rows = read_metrics(whole / "metrics.jsonl", "images")
    assert [row["images"] for row in rows if "test/objective/accuracy_farthest" in row] == [24, 48]
    interrupted = replace(config, run=tmp_path / "killed", checkpoint=CheckpointConfig(every=1))
    original, left = Learner.step, iter(range(8))  # of 12 steps

    def step(*arguments: Any, **named: Any) -> Any:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return original(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "step", step)
        with pytest.raises(KeyboardInterrupt):
            pretrain(interrupted)
    killed = pretrain(interrupted)
    ours, theirs = (checkpoint.load_newest(run / "checkpoints", read_only=True) for run in (whole, killed))
    assert ours is not None
    assert theirs is not None
    for name, value in ours[1]["learner"]["networks"].items():
        assert torch.equal(value, theirs[1]["learner"]["networks"][name]), name


def test_cpc_over_patches_saves_the_network_that_encodes_a_patch(tmp_path: Path) -> None:
    resnet = ResNetConfig(width=1 / 16, stem="small", norm="group")
    for split in ("train", "test"):
        make_classes(tmp_path / "images" / split, one=4, two=4)
    config = tiny(
        tmp_path / "images",
        tmp_path / "run",
        "cpc",
        encoder=BackboneConfig(resnet=resnet, patch=2, precision="float32"),
        augment=AugmentConfig(size=6, views=1),
        objectives=ObjectiveConfigs(cpc=CPCConfig("patches", steps=2, context_layers=1)),
        knn=KNNConfig(every=1, k=3),
    )
    whole = replace(config, encoder=replace(config.encoder, patch=0))
    batch_norm = replace(config, encoder=replace(config.encoder, resnet=replace(resnet, norm="batch")))
    for wrong, message in (
        (whole, r"objectives\.cpc\.kind must be time .*: set encoder\.patch, .*"),
        (batch_norm, r"encoder\.resnet\.norm must be group with encoder\.patch, got batch: .*"),
    ):
        with pytest.raises(UserError, match=rf"\A{message}\Z"):
            pretrain(wrong)
        assert not config.directory.exists()
    run = pretrain(config)
    loaded = load_encoder(run).encoder
    assert isinstance(loaded, ResNet)
    assert (loaded.config, loaded.input_shape) == (resnet, (3, 6, 6))
    found = checkpoint.load_newest(run / "checkpoints", read_only=True)
    assert found is not None
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, found[1]["learner"]["networks"][f"encoder.trunk.{name}"])
    logged = {name for row in read_metrics(run / "metrics.jsonl", "images") for name in row}
    assert {"probe/accuracy", "knn/accuracy", "objective/accuracy_farthest"} <= logged
    assert "probe/test_accuracy" not in logged, "the probe learns from patches, and test images are encoded whole"


def test_a_method_that_clusters_trains_on_images(folder: Path, tmp_path: Path) -> None:
    run = pretrain(tiny(folder, tmp_path / "run", "clustered"))
    rows = read_metrics(run / "metrics.jsonl", "images")
    assert [row["images"] for row in rows if "clusters/used" in row] == [4, 16]
    found = checkpoint.load_newest(run / "checkpoints", read_only=True)
    assert found is not None
    networks = found[1]["learner"]["networks"]
    assert networks["objective.bank"].shape == (14, 4)
    assert networks["objective.clusterings"] == 2


@pytest.mark.parametrize(
    ("data", "method", "lacking"), [("frames", "labeled", "labels"), ("folder", "dynamics", "act")]
)
def test_missing_needs_are_reported_before_anything_is_written(
    request: pytest.FixtureRequest, tmp_path: Path, data: str, method: str, lacking: str
) -> None:
    place = request.getfixturevalue(data)
    line = rf"\Amethod {method} needs {lacking}\w*, which {place}.* does not have: take simclr\Z"
    with pytest.raises(UserError, match=line):
        pretrain(tiny(place, tmp_path / "run", method, augment=replace(PLAIN, views=2)))
    assert not (tmp_path / "run").exists()


def test_pretrain_can_be_imported_from_curl_rl_vision() -> None:
    assert pretrain.__module__ == "curl_rl.vision.pretraining"
    with pytest.raises(AttributeError, match="no attribute 'pretrian'"):
        vision.pretrian  # noqa: B018


def test_importing_the_package_does_not_import_the_trainer() -> None:
    heavy = "import sys, curl_rl.vision; assert 'curl_rl.vision.pretraining' not in sys.modules"
    subprocess.run([sys.executable, "-c", heavy], check=True, timeout=120)
