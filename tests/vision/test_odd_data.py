"""Whole runs on folders that people do have: names in no UTF-8, runs inside the folder, test images under another name.

What comes of a run is compared with the folder, and with a run on the same images under ordinary names.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from curl_rl.artifacts.encoder_file import load_encoder
from curl_rl.encoders.resnet import ResNetConfig
from curl_rl.pretraining.config import BackboneConfig, LogConfig, OptimizerConfig
from curl_rl.runs.errors import UserError
from curl_rl.vision.config import VisionConfig, read_config
from curl_rl.vision.evaluation.classifier_file import load_classifier
from curl_rl.vision.evaluation.comparison import evaluate_runs
from curl_rl.vision.evaluation.protocols import EvaluationConfig
from curl_rl.vision.evaluation.simclr_v2 import fine_tune_run
from curl_rl.vision.pretraining import pretrain
from curl_rl.vision.views import AugmentConfig
from helpers.image_folders import make_classes, pixels, save


def config(data: Path, run: Path | None) -> VisionConfig:
    return VisionConfig(
        data=str(data),
        epochs=1,
        batch_size=4,
        device="cpu",
        run=run,
        encoder=BackboneConfig(resnet=ResNetConfig(width=1 / 32, stem="small"), precision="float32"),
        augment=AugmentConfig(size=6),
        optimizer=OptimizerConfig("adamw", lr=1e-3, lr_scaling="none", warmup_epochs=0),
        log=LogConfig(images_every=0, projector=4),
    )


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_encoder(run).encoder.state_dict()


def test_names_in_no_utf8_train_save_and_resume_as_others_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    plain, odd = tmp_path / "plain", tmp_path / "da\udce9ta"
    for split in ("train", "test"):
        make_classes(plain / split, ant=4, bee=4)
    shutil.copytree(plain, odd)
    for split in ("train", "test"):
        (odd / split / "bee").rename(odd / split / "caf\udce9\x1b[31m\n")
    runs = [pretrain(config(data, None)) for data in (plain, odd)]
    assert runs[1] == Path("runs/vision-da\\xe9ta/simclr-digits/seed1")
    first, second = map(weights, runs)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert set((runs[1] / "projector" / "labels.tsv").read_text().splitlines()) == {"ant", r"caf\xe9\x1b[31m\x0a"}
    assert read_config(runs[1] / "config.yaml").data == str(odd)
    pretrain(config(odd, None))
    said = capsys.readouterr().err
    assert "this run is complete" in said
    assert "\x1b" not in said

    fine_tune_run(runs[1], tmp_path / "classifier", labels=1, epochs=1)
    names = load_classifier(tmp_path / "classifier").classes
    assert names == ("ant", r"caf\xe9\x1b[31m\x0a")


def test_a_run_directory_in_no_utf8_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    data = make_classes(tmp_path / "data", ant=4)
    with pytest.raises(UserError, match="run must be a path in UTF-8, got .*ru\udce9n"):
        pretrain(config(data, tmp_path / "ru\udce9n"))
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_run_inside_its_data_does_not_become_a_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(make_classes(tmp_path, ant=4, bee=4))
    run = pretrain(config(Path(), None))
    line = f"the run directory {run} lies in the folder of the images"
    assert line in capsys.readouterr().err
    assert (run / "projector" / "images.png").exists()
    pretrain(config(Path(), None))
    said = capsys.readouterr().err
    assert "this run is complete" in said
    assert "2 classes (ant, bee), no images in runs" in said
    assert f"left out run directories, whose pictures are no data: {tmp_path / run}\n" in said
    pretrain(replace(config(Path(), None), seed=2))
    assert "8 images of" in capsys.readouterr().err


def test_an_encoder_is_evaluated_on_images_as_large_as_those_of_its_run(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for split in ("train", "test"):
        make_classes(data / split, ant=4, bee=4)
        save(data / split / "ant" / "small.png", pixels(0, 3))
    counts = {}
    for choice in ("upscale", "skip"):
        settings = replace(config(data, tmp_path / choice), image_size=6, small_images=choice)
        run = pretrain(settings)
        (row,) = evaluate_runs([run], EvaluationConfig(protocols=("knn",), k=3))
        counts[choice] = (row.data[0].train_images, row.data[0].test_images)
    assert counts == {"upscale": (9, 9), "skip": (8, 8)}
    fine_tune_run(tmp_path / "skip", tmp_path / "classifier", labels=1, epochs=1)
    assert load_classifier(tmp_path / "classifier").provenance["small_images"] == "skip"
