"""scripts/train_detector.py: its command line, presets, and mistakes in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from curl_rl.vision.detection.config import SCHEMA, DetectionConfig
from helpers.cutout_folders import make_cutouts

Command = Callable[..., int]
SMALL = (
    *("--steps", 2, "--batch_size", 1, "--test_scenes", 2, "--energy.scenes", 2, "--exemplars.steps", 1),
    *("--exemplars.per_class", 1, "--detector.width", 0.0625, "--detector.head.hidden", 8, "--log.every", 1),
    *("--scenes.size", 64, "--scenes.largest", 32, "--scenes.background", "plain", "--device", "cpu"),
)


def test_a_run_and_the_pictures_of_detect(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_cutouts(tmp_path / "shapes")
    tasks = tmp_path / "tasks.yaml"
    tasks.write_text("tasks: [[disk, bar], [cross]]\nunknown: [frame]\n")
    assert command("--data", folder, "--tasks", tasks, "--run", tmp_path / "run", *SMALL) == 0
    said = capsys.readouterr().err
    assert "teaches disk, bar; then cross; never frame" in said
    assert "task2-replay: mAP" in said
    assert (tmp_path / "run" / "config.yaml").read_text().startswith("kind: detection\n")
    assert "preset: cpu\n" in (tmp_path / "run" / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "tasks must name a YAML file for nowhere"),
        (["--tasks", "nowhere.yaml"], "cannot read nowhere.yaml: No such file or directory"),
        (["--batch_size", "0"], "batch_size must be at least 1, got 0"),
        (["--objectives.open_world.margin", "-1"], "objectives.open_world.margin must be positive, got -1"),
        (["--energy.unknowns", "paper"], "energy.unknowns must be auto or annotated, got paper"),
        (["--preset", "gpu"], "unknown preset gpu; presets are cpu, digits"),
        (["--clusters.weight", "0"], "unrecognized arguments: --clusters.weight"),
    ],
)
def test_mistakes_are_told_in_one_line(
    arguments: list[str],
    message: str,
    command: Command,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(*arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("preset", ["cpu", "digits"])
def test_presets_are_complete_and_differ_from_the_defaults(preset: str) -> None:
    config = SCHEMA.build({"preset": preset})
    assert config.preset == preset
    assert config.objectives.open_world.burn_in < config.steps
    assert config != DetectionConfig(preset=preset)


def test_help_begins_with_commands(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--help") == 0
    said = capsys.readouterr().out
    assert "\n    python scripts/train_detector.py --data SCENES --tasks tasks.yaml" in said
    assert "Weight of its loss, a sum over the classes; 0, none." in said
