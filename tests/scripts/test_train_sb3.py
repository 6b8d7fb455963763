"""The example for Stable-Baselines3, as a user calls it: the size of its frames, and one-line refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import envs
from curl_rl.artifacts.encoder_file import save_encoder
from curl_rl.encoders import EncoderConfig, PixelEncoder

pytest.importorskip("stable_baselines3")

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "train_sb3.py"
SHORT = ("--steps", 8, "--every", 8, "--episodes", 1, "--batch_size", 4)


@pytest.fixture
def command(command: Any) -> Any:
    """Runs the script in a few steps."""
    return lambda *arguments: command(*SHORT, *arguments)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Frame sizes of the environments made."""
    made: list[int] = []
    make = envs.make

    def recorded(name: str, *, size: int, **others: Any) -> Any:
        made.append(size)
        return make(name, size=size, **others)

    monkeypatch.setattr(envs, "make", recorded)
    return made


def write_run(directory: Path, channels: int = 9) -> Path:
    """An encoder of 18×18, from frames of 20."""
    torch.manual_seed(0)
    directory.mkdir()
    encoder = PixelEncoder((channels, 18, 18), EncoderConfig(2, (2, 2), 4))
    save_encoder(encoder, directory, rendered_size=20, provenance={})
    return directory


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_run(tmp_path / "run")


def test_frames_have_the_size_of_the_encoders_training_frames(
    command: Any, run: Path, drawn: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--encoder", "run", "--json", "rows.jsonl") == 0  # no slash, but the path exists
    assert drawn == [20, 20]
    (row,) = map(json.loads, Path("rows.jsonl").read_text().splitlines())
    assert row["steps"] == 8
    assert capsys.readouterr().err == ""


def test_another_size_is_accepted_and_reported(
    command: Any, run: Path, drawn: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "encoder.safetensors").rename("enc.safetensors")
    assert command("--encoder", "enc.safetensors", "--size", 22) == 0
    assert drawn == [22, 22]
    said = capsys.readouterr().err
    assert said.startswith("the encoder was trained on frames of 20 pixels: with --size 22 ")
    assert said.count("\n") == 1


@pytest.mark.parametrize(("flags", "sizes"), [((), [36, 36]), (("--size", 24, "--crop", 20), [24, 24])])
def test_a_new_encoder_has_its_own_sizes(command: Any, drawn: list[int], flags: tuple[Any, ...], sizes: Any) -> None:
    assert command("--encoder", "curl", *flags) == 0
    assert drawn == sizes


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--encoder", "run", "--crop", 18), "--crop 18 is for a new encoder of ours and does not apply to run: leave"),
        (("--encoder", "nature", "--crop", 18), "--crop 18 is for a new encoder of ours and does not apply to nature"),
        (("--encoder", "run", "--size", 17), "--size 17 is too small for run, which sees 18×18: use --size 20"),
        (("--encoder", "single"), "--encoder single takes 3 channels, but the observations here have 9, 3 RGB frames"),
        (("--encoder", "enc.safetensors"), "no encoder in .: enc.safetensors is missing"),
        (("--encoder", "crul"), "--encoder must be one of nature, pixel, curl, simclr, "),
        (("--encoder", "none"), "--encoder must be one of nature, pixel, curl, simclr, "),
        (("--encoder", "nature", "--size", 35), "--size 35 is too small for nature: use --size 36 or more"),
        (("--size", 30), "--size 30 is smaller than --crop 32: use --size 36, or a smaller --crop"),
        (("--size", 32), "--size 32 leaves --crop 32 nothing to choose from, so all views of curl would be the same"),
        (("--size", 0), "--size must be at least 1, got 0"),
    ],
)
def test_a_misfit_is_one_line_that_names_the_flag(
    command: Any, run: Path, flags: tuple[Any, ...], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(Path("single"), channels=3)
    assert command(*flags) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"train_sb3.py: error: {line}")
    assert said.count("\n") == 1


def test_stable_baselines3_accepts_the_scripts_smallest_size(command: Any) -> None:
    assert command("--encoder", "nature", "--size", 36) == 0


def test_an_environment_that_would_end_the_program_or_rewards_with_nan_is_one_line(
    command: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make, steps = envs.make, []

    def made(*outcome: Any) -> Any:
        def wrong(name: str, **settings: Any) -> Any:
            environment = make(name, **settings)
            step = environment.step

            def once(action: Any) -> Any:
                steps.append(action)
                if not outcome:
                    raise SystemExit(0)
                observation, _, *rest = step(action)
                return observation, outcome[0], *rest

            environment.step = once  # type: ignore[method-assign]
            return environment

        return wrong

    for outcome, line in (
        ((), "the environment's step() called sys.exit(0)"),
        ((float("nan"),), "the environment's reward must be finite, got nan"),
        (("much",), "the environment's reward must be a number, got a str"),
    ):
        monkeypatch.setattr(envs, "make", made(*outcome))
        assert command("--encoder", "curl") == 2
        assert capsys.readouterr().err == f"train_sb3.py: error: {line}\n"
    assert len(steps) == 3
