"""Starting from an encoder: refusals, the recorded hash, and resuming without the file."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import envs
from curl_rl.artifacts.encoder_file import load_encoder, save_encoder
from curl_rl.augment import center_crop
from curl_rl.encoders import EncoderConfig, PixelEncoder
from curl_rl.encoders.resnet import ResNet, ResNetConfig
from curl_rl.report.curves import read_curves
from curl_rl.rl import training
from curl_rl.rl.config import CheckpointConfig, RunConfig, UserError, load_preset, read_config
from curl_rl.rl.loading import load_agent
from curl_rl.rl.starting_encoder import read_starting_encoder
from curl_rl.rl.training import Trainer, train

SIZE, CROP = 16, 14
SHAPE = EncoderConfig(3, (2, 1), 5)


def trained_run(
    directory: Path, encoder: PixelEncoder | ResNet | None = None, *, size: int = SIZE, seed: int = 9
) -> Path:
    torch.manual_seed(seed)
    encoder = encoder if encoder is not None else PixelEncoder((6, CROP, CROP), SHAPE)
    with torch.no_grad():  # biases and norms unlike those of a new encoder
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    directory.mkdir(parents=True)
    save_encoder(encoder, directory, rendered_size=size, provenance={})
    return directory


def config(run: Path, encoder: Path | None, *, frozen: bool = False, frames: int = 24, **agent: Any) -> RunConfig:
    shape = {"filters": 3, "strides": [2, 1], "latent": 5}
    changes = {
        "environment": {"size": SIZE, "stack": 2},
        "agent": {"crop": CROP, "batch_size": 4, "hidden": 8, "precision": "float32", "encoder": shape, **agent},
        "training": {"random_steps": 8},
        "evaluation": {"every": 0},
        "frames": frames,
        "device": "cpu",
    }
    changes["agent"] |= {"freeze_encoder": True, "objective": "none"} if frozen else {}
    built = load_preset("cpu", "tiny-reach", changes)
    return replace(built, run=run, encoder=encoder, checkpoint=CheckpointConfig(every=5))


def make() -> Any:
    return envs.make("tiny-reach", size=SIZE, stack=2)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_agent(run, "cpu")[0].state_dict()


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("file", ["", "encoder.safetensors"])
def test_before_the_first_update_features_are_those_of_load_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frozen: bool, file: str
) -> None:
    source = trained_run(tmp_path / "source") / file
    seen = []

    def look(trainer: Trainer) -> None:
        observation = torch.randint(0, 256, (3, 6, SIZE, SIZE), dtype=torch.uint8)
        expected = load_encoder(source)(observation)
        view = center_crop(observation, CROP)
        agent = trainer.agent
        for encoder in (agent.encoder, agent.target_encoder):
            assert torch.equal(encoder(view), expected)
        assert torch.equal(agent.actor_projection(agent.encoder.convolutions(view)), expected)
        seen.append(agent.updates)

    monkeypatch.setattr(Trainer, "run", look)
    train(config(tmp_path / "run", source, frozen=frozen), make)
    assert seen == [0]


@pytest.mark.parametrize("rule", ["exact", "joint"])
def test_a_frozen_run_keeps_its_encoder_and_a_finetuned_one_does_not(tmp_path: Path, rule: str) -> None:
    source = trained_run(tmp_path / "source")
    given = load_encoder(source).encoder.state_dict()
    for frozen in (True, False):
        run = train(config(tmp_path / f"{frozen}", source, frozen=frozen, update_rule=rule), make)
        agent = load_agent(run, "cpu")[0]
        assert agent.updates > 10
        for encoder in (agent.encoder, agent.target_encoder):
            same = [torch.equal(value, given[name]) for name, value in encoder.state_dict().items()]
            assert all(same) if frozen else not any(same)
        saved = load_encoder(run).encoder.state_dict()
        assert all(torch.equal(value, given[name]) for name, value in saved.items()) is frozen


def test_a_run_records_path_and_hash_and_resumes_without_the_file(tmp_path: Path) -> None:
    source = trained_run(tmp_path / "source")
    alone = train(config(tmp_path / "alone", source), make)
    train(config(tmp_path / "run", source, frames=15), make)
    # By hand: every tensor's name and shape, then its numbers.
    digest = hashlib.sha256()
    for name, value in sorted(load_encoder(source).encoder.state_dict().items()):
        digest.update((name + str(list(value.shape))).encode() + value.numpy().tobytes())
    recorded = read_config(tmp_path / "run" / "config.yaml")
    assert (recorded.encoder, recorded.encoder_sha256) == (source, digest.hexdigest())
    provenance = json.loads((tmp_path / "run" / "encoder.json").read_text())["provenance"]
    assert (provenance["encoder"], provenance["encoder_sha256"]) == ("/".join(source.parts[-3:]), digest.hexdigest())

    shutil.rmtree(source)
    train(config(tmp_path / "run", source), make)
    expected = weights(alone)
    assert all(torch.equal(value, expected[name]) for name, value in weights(tmp_path / "run").items())
    with pytest.raises(UserError, match=r"encoder: .*source → None"):
        train(config(tmp_path / "run", None), make)
    # A fresh start needs the file, and is refused before the earlier run is set aside.
    with pytest.raises(UserError, match="encoder: no encoder in"):
        train(config(tmp_path / "run", source), make, fresh=True)
    assert (tmp_path / "run" / "checkpoints").is_dir()


def test_a_run_resumes_with_its_encoder_at_another_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training, "estimated_time", lambda *_: "no estimate")
    source = trained_run(tmp_path / "source")
    run = train(config(tmp_path / "run", source, frames=15), make)
    monkeypatch.chdir(run)
    train(config(run, Path("../source"), frames=16), make)
    assert "resumed with other settings: frames: 15 → 16\n" in capsys.readouterr().err
    # The same weights elsewhere; the file that the run began with is gone.
    source.rename(tmp_path / "moved")
    other = trained_run(tmp_path / "other", seed=10)
    settings = (run / "config.yaml").read_bytes()
    with pytest.raises(UserError, match=r"other settings \(encoder: .*source → .*other; encoder_sha256: .*; choose"):
        train(config(run, other), make)
    with pytest.raises(UserError, match="encoder: no encoder in .*nowhere"):
        train(config(run, tmp_path / "nowhere"), make)
    assert (run / "config.yaml").read_bytes() == settings
    train(config(run, tmp_path / "moved", frames=16), make)
    assert f"encoder: ../source → {tmp_path / 'moved'}" in capsys.readouterr().err
    assert read_config(run / "config.yaml").encoder == tmp_path / "moved"


def test_an_encoder_may_lie_in_the_run_that_is_set_aside(tmp_path: Path) -> None:
    run = train(config(tmp_path / "run", None), make)
    given = load_encoder(run).encoder.state_dict()
    train(config(run, run, frozen=True), make, fresh=True)
    assert all(torch.equal(value, given[name]) for name, value in load_encoder(run).encoder.state_dict().items())


def test_a_configuration_with_a_hash_takes_no_other_weights(tmp_path: Path) -> None:
    source, other = trained_run(tmp_path / "source"), trained_run(tmp_path / "other", seed=10)
    (_, of_source), (_, of_other) = read_starting_encoder(source), read_starting_encoder(other)
    assert of_source != of_other
    again = trained_run(tmp_path / "again")
    assert read_starting_encoder(again, of_source)[1] == of_source
    with pytest.raises(
        UserError, match=f"other must have encoder_sha256 {of_source[:12]}…, got SHA-256 {of_other[:12]}"
    ):
        train(replace(config(tmp_path / "run", other), encoder_sha256=of_source), make)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("encoder", "line"),
    [
        (
            lambda: PixelEncoder((9, CROP, CROP), SHAPE),
            r"it takes 9 channels and the environment gives 6 \(--environment.stack 3\)",
        ),
        (
            lambda: PixelEncoder((6, 12, 12), SHAPE),
            r"it takes images of 12×12 and the agent crops to 14×14 \(--agent.crop 12\)",
        ),
        (
            lambda: PixelEncoder((6, 20, 20), SHAPE),
            r"it takes images of 20×20 and the agent crops to 14×14 \(--environment.size 24 --agent.crop 20\)",
        ),
        (
            lambda: PixelEncoder((6, CROP, CROP), EncoderConfig(4, (3, 1), 7)),
            r"it has filters 4 and the agent 3 \(--agent.encoder.filters 4\); "
            r"it has strides \[3, 1\] and the agent \[2, 1\] \(--agent.encoder.strides \[3,1\]\); "
            r"it has latent 7 and the agent 5 \(--agent.encoder.latent 7\)",
        ),
        (lambda: PixelEncoder((4, CROP, CROP), SHAPE), "it takes 4 channels .*not a stack of RGB frames"),
        (
            lambda: ResNet((6, CROP, CROP), ResNetConfig(depth=18, width=4)),
            "must be a PixelEncoder, got a ResNet",
        ),
    ],
)
def test_an_encoder_that_does_not_fit_is_refused_with_the_flags_that_would(
    tmp_path: Path, encoder: Any, line: str
) -> None:
    source = trained_run(tmp_path / "source", encoder(), size=24)
    with pytest.raises(UserError, match=line) as error:
        train(config(tmp_path / "run", source), make)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_another_scale_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = trained_run(tmp_path / "source", size=24)
    train(config(tmp_path / "run", source, frozen=True), make)
    printed = capsys.readouterr().err
    assert "the encoder was trained on frames of 24 pixels" in printed
    assert f"encoder: starts from {source}, frozen" in printed


def test_a_curve_is_labeled_by_the_encoder_and_not_by_its_hash(tmp_path: Path) -> None:
    changed = config(tmp_path / "run", trained_run(tmp_path / "source"))
    train(replace(changed, evaluation=replace(changed.evaluation, every=12, episodes=1)), make)
    (curve,) = read_curves([tmp_path / "run"])
    assert f"encoder {tmp_path / 'source'}" in curve.label
    assert "sha256" not in curve.label


def test_frozen_random_weights_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(config(tmp_path / "run", None, frozen=True), make)
    assert "encoder: starts from random weights, frozen" in capsys.readouterr().err
