"""Fine-tuning and distillation between saved runs and saved classifiers, on images of easily separable classes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from curl_rl.artifacts.encoder_file import save_encoder
from curl_rl.artifacts.head_file import save_head
from curl_rl.encoders.heads import MLP
from curl_rl.encoders.resnet import ResNet, ResNetConfig
from curl_rl.runs.errors import UserError
from curl_rl.vision.config import SCHEMA, load_preset
from curl_rl.vision.data import load
from curl_rl.vision.evaluation.classifier_file import load_classifier
from curl_rl.vision.evaluation.consistency import fine_tune_consistently
from curl_rl.vision.evaluation.finetuning import top1_accuracy
from curl_rl.vision.evaluation.simclr_v2 import distill_classifier, fine_tune_run

CLASSES = ("dark", "light")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 4)):
        for base, name in ((0, "dark"), (150, "light")):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(base, base + 100, (8, 8, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "data"


def write_run(directory: Path, data: Path, width: float = 1 / 16, size: int = 8) -> Path:
    torch.manual_seed(0)
    encoder = ResNet((3, size, size), ResNetConfig(width=width, stem="small"))
    directory.mkdir()
    views = {"size": size, "scale": [0.5, 1.0], "mirror": 0.0}
    config = load_preset("cpu", "simclr", {"data": str(data), "augment": views})
    SCHEMA.save(config, directory / "config.yaml")
    save_encoder(encoder, directory, rendered_size=8, provenance={"epochs": 4})
    save_head(MLP((encoder.feature_spec.dim, 7, 6, 5), batch_norm=True, last="scaled"), directory)
    return directory


@pytest.fixture
def run(tmp_path: Path, data: Path) -> Path:
    return write_run(tmp_path / "run", data)


def test_a_students_default_images_are_found_from_another_directory(
    run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fine_tune_run(run, tmp_path / "out", labels=1.0, epochs=1, data="data")
    assert load_classifier(tmp_path / "out").provenance["data"] == str(data)


def test_a_mistake_leaves_no_directory_behind(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder /nowhere"):
        fine_tune_run(run, tmp_path / "out", data="/nowhere")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_fine_tuning_learns_and_saves_a_classifier_of_that_accuracy(
    run: Path, data: Path, tmp_path: Path, layers: int
) -> None:
    accuracy = fine_tune_run(run, tmp_path / "out", labels=1.0, from_layer=layers, epochs=20)
    classifier = load_classifier(tmp_path / "out")
    assert classifier.classes == CLASSES
    test = load(str(data), "test", 8)
    (batch,) = test.batches(len(test), shuffle=False)
    assert float(top1_accuracy(classifier.network, batch.images, test.required_labels())) == accuracy == 1.0
    made = classifier.provenance
    assert (made["labels"], made["from_layer"], made["test_accuracy"]) == (1.0, layers, accuracy)
    assert made["run"] == "/".join(run.parts[-3:])
    # The crops are those of the pretraining, not the protocol's.
    assert (made["training"]["crop_scale"], made["training"]["mirror"]) == (0.5, 0.0)
    assert classifier.network.linear.in_features == [32, 7, 6, 5][layers]


def test_the_epochs_are_those_of_simclr(run: Path, tmp_path: Path) -> None:
    for labels, epochs in ((0.13, 30), (0.09, 60)):
        fine_tune_run(run, tmp_path / f"{labels}", labels=labels)
        assert load_classifier(tmp_path / f"{labels}").provenance["training"]["epochs"] == epochs


def test_a_student_learns_the_teachers_predictions_and_not_the_labels(run: Path, data: Path, tmp_path: Path) -> None:
    fine_tune_run(run, tmp_path / "teacher", labels=1.0, epochs=20)
    # The training images have swapped labels: a student that used them would be wrong.
    (data / "train" / "dark").rename(data / "train" / "x")
    (data / "train" / "light").rename(data / "train" / "dark")
    (data / "train" / "x").rename(data / "train" / "light")
    how: dict[str, Any] = {"student": run, "epochs": 20, "temperature": 1.0}
    assert distill_classifier(tmp_path / "teacher", tmp_path / "student", **how) == 1.0
    student = load_classifier(tmp_path / "student")
    assert student.classes == CLASSES
    # With the swapped labels as nearly all of its loss, it is wrong.
    assert distill_classifier(tmp_path / "teacher", tmp_path / "wrong", labelled=1.0, alpha=0.01, **how) == 0.0
    # A student can teach as well; the temperature is the paper's for the student's shape.
    for width, temperature in ((None, 0.1), (1 / 64, 1.0)):
        distill_classifier(tmp_path / "student", tmp_path / f"{width}", epochs=1, width=width)
        third = load_classifier(tmp_path / f"{width}")
        assert third.network.linear.in_features == (32 if width is None else 8)
        assert third.provenance["temperature"] == temperature
        assert third.provenance["training"]["learning_rate"] == pytest.approx(0.05 * temperature)
        assert third.provenance["teacher"] == "/".join((tmp_path / "student").parts[-3:])
    assert student.provenance["student"] == "/".join(run.parts[-3:])


def test_distillation_needs_no_labels(run: Path, data: Path, tmp_path: Path) -> None:
    fine_tune_run(run, tmp_path / "teacher", labels=1.0, epochs=1)
    for number, path in enumerate(sorted((data / "train").rglob("*.png"))):
        path.rename(data / "train" / f"{number}.png")
    for name in CLASSES:
        (data / "train" / name).rmdir()
    distill_classifier(tmp_path / "teacher", tmp_path / "student", epochs=1)
    with pytest.raises(UserError, match="labels are needed"):
        distill_classifier(tmp_path / "teacher", tmp_path / "other", labelled=0.5, alpha=0.5, epochs=1)


def test_what_does_not_fit_is_one_line_before_anything_is_learned(run: Path, data: Path, tmp_path: Path) -> None:
    teacher, out = tmp_path / "teacher", tmp_path / "out"
    fine_tune_run(run, teacher, labels=1.0, epochs=1)

    def refuses(message: str, **changes: Any) -> None:
        with pytest.raises(UserError, match=message):
            distill_classifier(teacher, out, **changes)
        assert not out.exists()

    refuses("labelled must be a share from 0 to 1, got 2", labelled=2, alpha=0.5)
    refuses("labelled 0.5 and alpha 1 contradict each other", labelled=0.5)
    refuses("labelled 0 and alpha 0.5 contradict each other", alpha=0.5)
    refuses("depth and width apply to a new network only", student=run, width=1.0)
    refuses("was trained on views of 6 pixels, but the teacher on 8", student=write_run(tmp_path / "six", data, size=6))
    with pytest.raises(ValueError, match="temperature must be positive and finite, got nan"):
        distill_classifier(teacher, out, temperature=math.nan)
    with pytest.raises(ValueError, match="learning_rate must be from 0 to 1,000,000, got nan"):
        distill_classifier(teacher, out, learning_rate=math.nan)
    with pytest.raises(ValueError, match="learning_rate must be from 0 to 1,000,000, got nan"):
        fine_tune_run(run, out, labels=0.5, epochs=1, learning_rate=math.nan)
    assert not out.exists()
    with pytest.raises(UserError, match="labels must be a share above 0 and at most 1, got 0"):
        fine_tune_run(run, out, labels=0)
    with pytest.raises(UserError, match="from_layer must be from 0 to 3, .*, got 4"):
        fine_tune_run(run, out, from_layer=4)
    with pytest.raises(UserError, match="teacher already holds a classifier"):
        fine_tune_run(run, teacher)
    (run / "head.safetensors").unlink()
    with pytest.raises(ValueError, match="no head in .*run: head.safetensors is missing"):
        fine_tune_run(run, out, from_layer=1)
    (data / "test" / "light").rename(data / "test" / "bright")
    (data / "train" / "light").rename(data / "train" / "bright")
    with pytest.raises(UserError, match="has the classes bright, dark; the teacher's are dark, light"):
        distill_classifier(teacher, out)
    description = json.loads((teacher / "classifier.json").read_text())
    (teacher / "classifier.json").write_text(json.dumps(description | {"classes": ["one"]}))
    with pytest.raises(ValueError, match="are not of the same classifier: they differ in classes"):
        distill_classifier(teacher, out)


@pytest.mark.parametrize("other", [False, True])
def test_unlabeled_images_are_those_of_the_set_or_of_a_folder(
    run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: bool
) -> None:
    given: list[torch.Tensor] = []

    def watched(encoder: Any, images: Any, labels: Any, unlabeled: torch.Tensor, *test: Any, **named: Any) -> Any:
        given.append(unlabeled)
        return fine_tune_consistently(encoder, images, labels, unlabeled, *test, **named)

    monkeypatch.setattr("curl_rl.vision.evaluation.simclr_v2.fine_tune_consistently", watched)
    folder = data / "test" if other else None
    fine_tune_run(run, tmp_path / "out", labels=0.5, unlabelled=str(folder) if folder else "", epochs=2)
    assert torch.equal(given[0], load(str(folder or data), "train", 8).everything().images)
    provenance = load_classifier(tmp_path / "out").provenance
    assert provenance["unlabelled"].endswith("data/test" if other else "the training images")
    assert provenance["consistency"]["temperature"] == 0.4
    assert provenance["training"]["batch_size"] == 64
