"""Presets and the table of methods, compared with numbers from the papers and released code they cite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from curl_rl.objectives import METHODS, registry
from curl_rl.rl.config import RunConfig
from curl_rl.rl.config import load_preset as load_rl_preset
from curl_rl.runs.errors import UserError
from curl_rl.vision.config import METHODS as METHODS_TABLE
from curl_rl.vision.config import PRESETS, VisionConfig, load_preset, parse_command_line
from helpers.dummy_objectives import DUMMIES
from helpers.registry import restored_registry


@pytest.mark.parametrize("method", [name for name, m in METHODS.items() if "text" not in m.objective.needs])
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
        # SupCon's README: 0.5 for a batch of 1024, for a loss of 1/0.7 of ours (tests/vision/test_published_steps.py).
        ("supcon", ("sgd", 0.17857, 0.7 * 1e-4, 10)),
        # lightly's, 0.001 for a batch of 128.
        ("swav", ("adamw", 0.001 * 2, 1e-6, 0)),
        # Its released code for CIFAR-10: 0.1 for a batch of 128.
        ("instdisc", ("sgd", 0.1 * 2, 5e-4, 0)),
        # lightly's, 0.06 for a batch of 128.
        ("nnclr", ("sgd", 0.06 * 2, 5e-4, 0)),
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


@pytest.mark.parametrize(
    ("line", "warmup", "shrunk"),
    [
        ("--epochs 1", 3 / 60, True),
        ("--epochs 3", 3 * 3 / 60, True),
        ("--epochs 4", 3, False),
        ("--epochs 1 --optimizer.warmup_epochs 0.5", 0.5, False),
        ("--preset cifar10 --epochs 10", 10 * 10 / 200, True),
        ("--preset cifar10 --method moco --epochs 1", 0, False),
    ],
)
def test_a_presets_warm_up_shrinks_with_a_short_run(
    line: str, warmup: float, shrunk: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    config = parse_command_line(line.split(), program="p", description="")[0]
    assert config.optimizer.warmup_epochs == pytest.approx(warmup)
    assert ("optimizer.warmup_epochs is " in capsys.readouterr().err) == shrunk


@pytest.mark.parametrize("named", ["--optimizer.warmup_epochs 3", "--config settings.yaml"])
def test_a_warm_up_that_the_user_names_is_not_changed(
    named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "settings.yaml").write_text("optimizer: {warmup_epochs: 3}\n")
    with pytest.raises(UserError, match=r"\Aoptimizer.warmup_epochs must be below epochs 1, got 3\Z"):
        parse_command_line(["--epochs", "1", *named.split()], program="p", description="")


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


@pytest.mark.parametrize("after", [[], ["--data", "folder"]], ids=["last", "before a flag"])
def test_method_without_a_name_lists_the_methods(after: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parse_command_line(["--seed", "3", "--method", *after], program="p", description="")
    assert left.value.code == 0
    lines = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    needs = {name: " Not here: needs text." * ("text" in m.objective.needs) for name, m in METHODS.items()}
    assert lines == {name: method.summary + needs[name] for name, method in METHODS.items()}


def test_presets_know_a_method_that_was_registered_after_they_were_read() -> None:
    load_preset("digits", "simclr")
    with restored_registry():
        for method in DUMMIES.values():
            registry.register(method)
            config = load_preset("digits", method.name)
            assert (config.method, type(getattr(config.objectives, method.name))) == (method.name, method.config)


def test_a_method_s_table_wins_over_the_preset() -> None:
    """The preset cpu has batches of 256; its table gives BYOL 64."""
    assert load_preset("cpu", "simclr").batch_size == 256
    assert load_preset("cpu", "byol").batch_size == 64
