"""The comparison of detectors: what is trained and measured; torchvision's only where its operators are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import detection
from curl_rl.runs.session import Remedies
from curl_rl.vision.data import DIGITS
from curl_rl.vision.detection.config import SCHEMA, DetectionConfig
from curl_rl.vision.detection.cutouts import PARTS, Cutouts, Part, read_cutouts
from curl_rl.vision.detection.detector import Detections, Detector
from curl_rl.vision.detection.evaluation import TEST_SEED, scenes_in_batches
from curl_rl.vision.detection.trainer import Data, DetectionTrainer
from curl_rl.vision.detection.training import DIGIT_TASKS

TAUGHT = range(DIGIT_TASKS.known(0))


@pytest.fixture(scope="module")
def config() -> DetectionConfig:
    return replace(SCHEMA.build({"preset": "digits"}), steps=2, test_scenes=20, batch_size=2)


@pytest.fixture(scope="module")
def cutouts() -> dict[Part, Cutouts]:
    return read_cutouts(DIGITS, DIGIT_TASKS.classes)


def test_a_perfect_detector_has_the_precision_one_and_a_blind_one_zero(
    config: DetectionConfig, cutouts: dict[Part, Cutouts]
) -> None:
    batches = scenes_in_batches(
        cutouts["test"], config.scenes, config.test_scenes, seed=TEST_SEED, purpose="test scenes"
    )

    def perfect(images: torch.Tensor) -> list[Detections]:
        scenes = next(batches)
        assert torch.equal(scenes.images, images)
        known = [labels[(labels >= 0) & (labels < len(TAUGHT))] for labels in scenes.truth.labels]
        boxes = [own[(labels >= 0) & (labels < len(TAUGHT))] for own, labels in zip(*scenes.truth, strict=True)]
        return [Detections(own, label, torch.ones(len(label))) for own, label in zip(boxes, known, strict=True)]

    assert detection.mean_precision(perfect, config, cutouts["test"], TAUGHT) == pytest.approx(1, rel=1e-6)

    def blind(images: torch.Tensor) -> list[Detections]:
        return [Detections(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0))] * len(images)

    assert detection.mean_precision(blind, config, cutouts["test"], TAUGHT) == 0


def test_both_learn_from_the_scenes_of_a_run_of_train_detector(
    config: DetectionConfig, cutouts: dict[Part, Cutouts], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The images and the annotations of the first task's steps, as the trainer itself draws them."""
    seen: list[tuple[torch.Tensor, ...]] = []

    def record(images: torch.Tensor, truth: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        seen.append((images, *truth))
        return sum((parameter.sum() for parameter in network.parameters()), torch.zeros(()))

    network = torch.nn.Linear(2, 2)
    detection.train(network, record, config, cutouts["train"], TAUGHT, "recorded")  # type: ignore[arg-type]

    steps: list[tuple[torch.Tensor, ...]] = []
    losses = Detector.losses

    def recorded(self: Detector, images: torch.Tensor, truth: tuple[torch.Tensor, ...], *rest: object) -> object:
        steps.append((images, *truth))
        return losses(self, images, truth, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Detector, "losses", recorded)
    data = Data(DIGIT_TASKS, *(cutouts[part] for part in PARTS))
    remedies = Remedies(memory="", numbers="")
    trainer = DetectionTrainer(replace(config, run=tmp_path), torch.device("cpu"), data, remedies=remedies)
    for _ in range(2):
        trainer.step(trainer.phases[0])
    trainer.close()
    assert len(seen) == 2
    for ours, theirs in zip(seen, steps, strict=True):
        for mine, other in zip(ours, theirs, strict=True):
            assert torch.equal(mine, other)


@pytest.mark.skipif(not detection.torchvision_detects(), reason="torchvision is not installed with its operators")
@pytest.mark.parametrize("sizes", detection.SIZES)
def test_torchvisions_detector_learns_and_finds(
    sizes: str, config: DetectionConfig, cutouts: dict[Part, Cutouts]
) -> None:
    theirs = detection.torchvisions(len(TAUGHT), sizes, config.detector, config.scenes.size)
    before = [parameter.clone() for parameter in theirs.parameters()]
    detection.train(theirs, detection.their_losses(theirs), config, cutouts["train"], TAUGHT, sizes)
    assert all(not torch.equal(old, new) for old, new in zip(before, theirs.parameters(), strict=True) if new.ndim > 1)
