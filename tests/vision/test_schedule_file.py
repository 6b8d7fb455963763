"""Schedules in files: what was written is read, mistakes are named, and a run plays the one that it began with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from curl_rl.augment import population_augment
from curl_rl.augment.pba import SLOTS, Phase, Schedule
from curl_rl.objectives import ViewSpec
from curl_rl.runs.errors import UserError
from curl_rl.vision.config import SCHEMA, VisionConfig
from curl_rl.vision.data.image_sets import ResidentImages
from curl_rl.vision.schedule_file import digest, read_schedule, with_digest, write_schedule
from curl_rl.vision.source import ImageSource
from curl_rl.vision.views import AugmentConfig, make_views

SCHEDULE = Schedule(
    (
        Phase(1, tuple((name, 0.0, 0) for name in SLOTS)),
        Phase(3, (("invert", 1.0, 0), ("rotate", 0.3, 4))),
    )
)
PLAIN = AugmentConfig(views=1, size=8, scale=(1.0, 1.0), ratio=(1.0, 1.0), mirror=0, jitter=0, greyscale=0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_schedule(tmp_path / "schedule.yaml", SCHEDULE, provenance={"data": "digits"})
    return tmp_path / "schedule.yaml"


def test_what_was_written_is_read(file: Path) -> None:
    assert read_schedule(file) == SCHEDULE


def test_a_file_by_hand_is_read_in_yaml_and_in_json(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("kind: augmentation schedule\nphases:\n- {epochs: 2, policy: [[rotate, 1, 9]]}\n")
    (tmp_path / "b").write_text(
        '{"kind": "augmentation schedule", "phases": [{"epochs": 2, "policy": [["rotate", 1, 9]]}]}'
    )
    expected = Schedule((Phase(2, (("rotate", 1.0, 9),)),))
    assert read_schedule(tmp_path / "a") == read_schedule(tmp_path / "b") == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "pretraining"}, "the kind of .* must be 'augmentation schedule', got 'pretraining'"),
        ({"phases": []}, r"phases in .* must be a list with at least one phase, got \[\]"),
        ({"phases": [3]}, "phase 1 of .* must have epochs and a policy, got 3"),
        ({"phases": [{"epochs": 0, "policy": []}]}, "epochs of phase 1 of .* must be from 1 to 1,000,000, got 0"),
        ({"phases": [{"epochs": 1, "policy": []}]}, "policy of phase 1 of .* at least one operation"),
        ({"phases": [{"epochs": 1, "policy": [["rotate", 1]]}]}, "must be .operation, probability, level., got"),
        ({"phases": [{"epochs": 1, "policy": [["spin", 1, 2]]}]}, "must be one of shear_x, .* cutout, got 'spin'"),
        ({"phases": [{"epochs": 1, "policy": [[["x"], 1, 2]]}]}, "must be one of shear_x, .* cutout, got"),
        ({"phases": [{"epochs": 1, "policy": [["rotate", 1.1, 2]]}]}, r"probability of rotate .* \[0, 1\], got 1.1"),
        ({"phases": [{"epochs": 1, "policy": [["rotate", 1, 10]]}]}, "level of rotate .* from 0 to 9, got 10"),
    ],
)
def test_mistakes_are_named(file: Path, change: dict[str, Any], message: str) -> None:
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | change))
    with pytest.raises(UserError, match=message):
        read_schedule(file)


def test_the_hash_is_of_the_content(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("# a remark\n" + yaml.safe_dump(yaml.safe_load(file.read_text()), sort_keys=True))
    assert digest(read_schedule(other)) == digest(SCHEDULE)
    shorter = Schedule(SCHEDULE.phases[:1])
    assert digest(shorter) != digest(SCHEDULE)


def recipe(path: Path, **settings: Any) -> AugmentConfig:
    return replace(PLAIN, policy="pba", schedule=path, **settings)


def test_a_run_goes_on_with_the_same_schedule_at_another_path_only(file: Path, tmp_path: Path) -> None:
    begun = VisionConfig(augment=with_digest(recipe(file)))
    moved = tmp_path / "moved.yaml"
    write_schedule(moved, SCHEDULE)
    assert not SCHEMA.changed_fields(begun, replace(begun, augment=with_digest(recipe(moved))))
    write_schedule(moved, Schedule(SCHEDULE.phases[:1]))
    assert "augment.schedule_sha256" in SCHEMA.changed_fields(begun, replace(begun, augment=with_digest(recipe(moved))))
    with pytest.raises(UserError, match="must have schedule_sha256"):
        with_digest(recipe(moved, schedule_sha256=begun.augment.schedule_sha256))


def test_a_policy_and_its_schedule_come_together(file: Path) -> None:
    for settings in ({"policy": "pba"}, {"schedule": file}, {"policy": "autoaugment", "schedule": file}):
        with pytest.raises(ValueError, match=r"augment.schedule must be a file with augment.policy pba"):
            replace(PLAIN, **settings)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="schedule_sha256 is the hash of augment.schedule, which is not set"):
        replace(PLAIN, schedule_sha256="0")
    with pytest.raises(ValueError, match="policy must be that of the schedule"):
        make_views(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), recipe(file), torch.Generator())


def test_each_epoch_has_the_policy_of_its_time(file: Path) -> None:
    pixels = torch.randint(0, 256, (12, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images, spec = ResidentImages("noise", pixels), ViewSpec(0)
    source = ImageSource(images, recipe(file), [spec], schedule=SCHEDULE, epochs=8)
    for epoch in range(8):
        (batch,) = source.of(images).batches(12, seed=1, epoch=epoch)
        view = source.views(batch, torch.Generator().manual_seed(5))[spec]
        reference = torch.Generator().manual_seed(5)
        (plain,) = make_views(batch.images, PLAIN, reference).values()
        policy = SCHEDULE.phases[0 if epoch < 2 else 1].policy
        assert torch.allclose(view, population_augment(plain, reference, policy=policy), atol=1e-6), epoch
        assert torch.allclose(view, plain, atol=1e-6) == (epoch < 2)
