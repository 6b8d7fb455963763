"""Presets and the table of methods, compared with numbers from the papers and released code they cite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from curl_rl.objectives import METHODS
from curl_rl.rl.config import RunConfig
from curl_rl.rl.config import load_preset as load_rl_preset
from curl_rl.runs.errors import UserError
from curl_rl.vision.config import METHODS as METHODS_TABLE
from curl_rl.vision.config import PRESETS, VisionConfig, load_preset, parse_command_line


@pytest.mark.parametrize("method", METHODS)
def test_every_preset_can_be_loaded_for_every_method(method: str) -> None:
    names = {path.stem for path in PRESETS.glob("*.yaml")} - {METHODS_TABLE.stem}
    assert names == {"cifar10", "cpu", "digits", "frames"}
    for name in names:
        config = load_preset(name, method)
        assert (config.preset, config.method) == (name, method)
        # Recorded frames keep their size; all other presets scale images to the size of the views.
        assert config.image_size == (None if name == "frames" else config.augment.size)


def test_recorded_frames_are_seen_as_the_agent_will_see_them() -> None:
    agent, config = load_rl_preset("cpu", "cartpole-swingup"), load_preset("frames", "curl")
    assert config.encoder.kind == "pixel"
    assert config.encoder.pixel == agent.agent.encoder
    assert (config.augment.size, config.frames.stack) == (agent.agent.crop, agent.environment.stack)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        # SimCLR's README for CIFAR-10.
        ("simclr", ("lars", 1.0, 1e-4, 10)),
        # MoCo's CIFAR-10 notebook: 0.06 for a batch of 512.
        ("moco", ("sgd", 0.06 / 2, 5e-4, 0)),
        # SimSiam, appendix D.
        ("simsiam", ("sgd", 0.03, 5e-4, 0)),
        # lightly's CIFAR-10 benchmark: 0.06 for a batch of 128. Its loss for BYOL is a quarter of ours
        # (tests/vision/test_published_steps.py).
        ("byol", ("sgd", 0.06 * 2 / 4, 4 * 5e-4, 10)),
        ("barlow", ("sgd", 0.06 * 2, 5e-4, 0)),
        # lightly's, 0.001 for a batch of 128.
        ("swav", ("adamw", 0.001 * 2, 1e-6, 0)),
    ],
)
def test_published_optimizers(method: Any, expected: tuple[str, float, float, float]) -> None:
    o = load_preset("cifar10", method).optimizer
    assert (o.name, o.lr, o.weight_decay, o.warmup_epochs) == expected
    assert o.lr_scaling == "linear"


def test_published_objectives() -> None:
    assert load_preset("cifar10", "simclr").objectives.simclr.temperature == 0.5
    moco = load_preset("cifar10", "moco")
    assert (moco.objectives.moco.temperature, moco.objectives.moco.momentum, moco.objectives.moco.queue) == (
        0.1,
        0.99,
        4096,
    )
    assert moco.encoder.resnet.batch_norm_splits == 8
    assert load_preset("cifar10", "byol").augment.solarise == (0.0, 0.2)
    assert load_preset("cifar10", "simsiam").objectives.simsiam.projector_layers == 2


def test_vision_presets_are_not_the_agents() -> None:
    for name in ("digits", "cifar10", "methods"):
        with pytest.raises(UserError, match=f"unknown preset {name}"):
            load_rl_preset(name, RunConfig.env)
    with pytest.raises(UserError, match="unknown preset methods; presets are cifar10, cpu, digits"):
        load_preset("methods", "simclr")


def test_the_directory_follows_from_data_method_preset_and_seed() -> None:
    def directory(line: str) -> Path:
        return parse_command_line(line.split(), program="p", description="")[0].directory

    assert directory("") == Path("runs/vision-digits/simclr-digits/seed1")
    assert directory("--data a/birds/ --method moco --preset cpu --seed 4") == Path("runs/vision-birds/moco-cpu/seed4")
    assert directory("--run x") == Path("x")


def test_the_first_try_is_the_default() -> None:
    assert VisionConfig().data == VisionConfig().preset == "digits"


@pytest.mark.parametrize(
    ("line", "gpu", "preset"),
    [
        ("", True, "digits"),
        ("--data digits", False, "digits"),
        ("--data birds", False, "cpu"),
        ("--data birds", True, "cifar10"),
        ("--data birds --device cpu", True, "cpu"),
        ("--data birds --device cuda:1", False, "cifar10"),
        ("--data birds --preset digits", True, "digits"),
    ],
)
def test_the_default_preset_of_a_folder_depends_on_the_device(
    line: str, gpu: bool, preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    config = parse_command_line(line.split(), program="p", description="")[0]
    assert config == load_preset(preset, "simclr", {"data": config.data, "device": config.device})
    assert config.preset == preset
