"""Settings on their way to a factory: envs.make, or one of the user's that knows fewer settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import envs
from curl_rl import load_policy
from curl_rl.commands import evaluate_agent, record_frames, train_agent
from curl_rl.commands.environments import camera_flag, make_configured
from curl_rl.rl.config import EnvironmentConfig, parse_command_line, read_config, save_config

LINE = (
    "--preset cpu --device cpu --frames 30 --environment.size 12 --environment.action_repeat 1 --agent.crop 10 "
    "--agent.batch_size 4 --agent.hidden 8 --agent.encoder.filters 2 --agent.encoder.strides [2] "
    "--agent.encoder.latent 4 --agent.precision float32 --training.random_steps 20 --replay.capacity 100 "
    "--evaluation.every 0"
)
TINY = LINE.split()


def fixed(name: str, *, size: int, stack: int, action_repeat: int, quality: str) -> Any:
    """A factory with these keywords and no others."""
    return envs.make("tiny-reach", size=size, stack=stack, action_repeat=action_repeat)


def positional(camera: str, /, *, size: int, stack: int, action_repeat: int, quality: str) -> Any:
    """A factory whose first parameter happens to be called camera."""
    return camera


class Spy:
    """A factory that takes a camera and notes it."""

    def __init__(self) -> None:
        self.cameras: list[Any] = []

    def __call__(self, name: str, *, camera: Any = "none passed", **settings: Any) -> Any:
        self.cameras.append(camera)
        return fixed(name, **settings)


def anything(name: str, **settings: Any) -> Any:
    return settings


def test_a_camera_reaches_a_factory_that_takes_one() -> None:
    usual = {"size": 100, "stack": 3, "action_repeat": 4, "quality": "faithful"}
    assert make_configured(anything, "house", EnvironmentConfig()) == usual
    assert make_configured(anything, "house", EnvironmentConfig(camera=0)) == {**usual, "camera": 0}
    spy = Spy()
    make_configured(spy, "house", EnvironmentConfig())
    make_configured(spy, "house", EnvironmentConfig(camera="hand"))
    assert spy.cameras == ["none passed", "hand"]


def test_proprioception_reaches_a_factory_that_takes_it() -> None:
    assert "proprioception" not in make_configured(anything, "house", EnvironmentConfig())
    for wanted in ("all", ("position", "velocity")):
        made = make_configured(anything, "house", EnvironmentConfig(proprioception=wanted))
        assert made["proprioception"] == wanted


@pytest.mark.parametrize("make", [fixed, positional])
@pytest.mark.parametrize(
    ("setting", "value", "shown"),
    [
        ("camera", "hand", r"'hand'"),
        ("camera", 0, "0"),
        ("proprioception", "all", r"'all'"),
        ("proprioception", ("a", "b"), r"\['a', 'b'\]"),
    ],
)
def test_a_factory_that_knows_no_such_setting_is_refused_only_if_it_is_set(
    make: Any, setting: str, value: Any, shown: str
) -> None:
    assert make_configured(make, "house", EnvironmentConfig(size=8)) is not None
    line = rf"^environment.{setting} must be left out, got {shown}: this program's environments do not take it$"
    with pytest.raises(ValueError, match=line):
        make_configured(make, "house", EnvironmentConfig(**{setting: value}))


@pytest.mark.parametrize(
    ("text", "camera"), [("0", 0), ("-1", -1), ("back", "back"), ("y-axis", "y-axis"), ("on", "on"), ("1.5", "1.5")]
)
def test_a_camera_is_a_number_or_a_name_to_every_command(text: str, camera: int | str, tmp_path: Path) -> None:
    assert camera_flag(text) == camera
    line = [f"--environment.camera={text}"]
    config, *_ = parse_command_line(line, program="train_agent.py", description="")
    assert config.environment.camera == camera
    save_config(config, tmp_path / "config.yaml")
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["environment"]["camera"] == camera
    assert read_config(tmp_path / "config.yaml").environment.camera == camera


def test_a_camera_of_another_type_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "my.yaml").write_text("environment: {camera: true}\n")
    assert train_agent.main(["--config", str(tmp_path / "my.yaml")], anything) == 2
    said = capsys.readouterr().err
    assert said.endswith("environment.camera must be a whole number or text, got True\n")


def test_a_run_keeps_its_camera(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In training, evaluation and recording; and another camera is another run, and another recording."""
    run, frames, spy = tmp_path / "run", tmp_path / "frames", Spy()
    line = ["--env", "my-house", *TINY, "--run", str(run)]
    assert train_agent.main([*line, "--environment.camera", "hand"], spy) == 0
    assert yaml.safe_load((run / "config.yaml").read_text())["environment"]["camera"] == "hand"
    assert json.loads((run / "encoder.json").read_text())["provenance"]["camera"] == "hand"
    assert load_policy(run).provenance["camera"] == "hand"
    assert evaluate_agent.main([str(run), "--episodes", "1"], spy) == 0
    record = ["--policy", str(run), "--agent_steps", "5", "--out", str(frames)]
    assert record_frames.main(record, spy) == 0
    assert record_frames.main([*record, "--camera", "hand"], spy) == 0
    assert spy.cameras == ["hand"] * len(spy.cameras)
    assert len(spy.cameras) == 5  # training takes one environment and its evaluation another
    assert json.loads((frames / "frames.json").read_text())["camera"] == "hand"
    capsys.readouterr()

    with pytest.raises(SystemExit, match="2"):
        record_frames.main([*record, "--camera", "0"], spy)
    assert "--camera must be those of" in capsys.readouterr().err
    assert train_agent.main([*line, "--environment.camera", "0"], spy) == 2
    assert "environment.camera" in capsys.readouterr().err
    by_hand = ["--env", "my-house", "--size", "12", "--out", str(frames), "--agent_steps", "5"]
    with pytest.raises(SystemExit, match="2"):
        record_frames.main([*by_hand, "--camera", "1"], spy)
    assert "camera: hand → 1" in capsys.readouterr().err


def test_a_factory_that_knows_no_camera_is_one_line_at_the_door(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    line = ["--env", "my-house", *TINY, "--run", str(run), "--environment.camera", "1"]
    for more in ([], ["--training.environments", "2"]):
        assert train_agent.main([*line, *more], fixed) == 2
        said = capsys.readouterr().err
        assert "environment.camera must be left out, got 1: this program's environments do not take it" in said
        assert said.count("\n") == 1
        assert not run.exists()
