"""docs/adding_a_method.md is true: its method, written to its own file, trains wherever ours do."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from curl_rl import AuxiliaryLoss, PixelEncoder
from curl_rl.encoders import EncoderConfig, FeatureSpec
from curl_rl.encoders.resnet import ResNetConfig
from curl_rl.objectives import registry
from curl_rl.pretraining.config import BackboneConfig, CheckpointConfig, LogConfig, OptimizerConfig
from curl_rl.rl.agent import AgentConfig
from curl_rl.rl.config import parse_command_line, read_config
from curl_rl.runs import checkpoint
from curl_rl.runs.errors import UserError
from curl_rl.runs.logger import read_metrics
from curl_rl.testing import OBJECTIVE_CHECKS, CheckFailed, check_objective
from curl_rl.vision import config as vision_config
from curl_rl.vision.pretraining import pretrain
from curl_rl.vision.views import AugmentConfig
from helpers.corridor import flat, tiny, trained
from helpers.image_folders import make_classes
from helpers.pages import DOCS, blocks, run
from helpers.registry import restored_registry
from helpers.wrong_objectives import EnqueuesInForward

ROOT = DOCS.parent
PAGE = "adding_a_method.md"
METHOD_FILE, REGISTRATION, CHECK, PLUG_IN, PROGRAM = range(5)  # the page's programs
SPEC = FeatureSpec(6, (2, 3, 3))
METRICS = {"objective/alignment", "objective/uniformity", "objective/embedding_std"}


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Writes and registers the method's file as the page describes; yields the namespace of its programs."""
    (tmp_path / "align_uniform.py").write_text(blocks(PAGE)[METHOD_FILE])
    monkeypatch.syspath_prepend(tmp_path)
    namespace: dict[str, Any] = {"__name__": "page"}
    with restored_registry():
        run(blocks(PAGE)[REGISTRATION], PAGE, namespace)
        yield namespace
    sys.modules.pop("align_uniform")


@pytest.fixture
def method(page: dict[str, Any]) -> Any:
    """The module of the page's file."""
    return import_module("align_uniform")


def head_of(run_directory: Path) -> list[torch.Tensor]:
    """The objective's weights in the newest checkpoint."""
    found = checkpoint.load_newest(run_directory / "checkpoints", read_only=True)
    assert found is not None
    return [value for name, value in flat(found[1]) if "/objective.head." in name and "optimizers" not in name]


def test_the_page_checks_its_method_and_lists_every_check(page: dict[str, Any]) -> None:
    run(blocks(PAGE)[CHECK], PAGE, page)
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", (DOCS / PAGE).read_text(), flags=re.MULTILINE)
    promises = {name: check.__doc__ or "" for name, check in OBJECTIVE_CHECKS.items()}
    ours = [(name, " ".join(text.split("\n\n")[0].split()).replace("``", "`")) for name, text in promises.items()]
    assert rows[-len(ours) :] == ours
    (shown,) = re.findall(r"^```\nCheckFailed: (.*?)^```$", (DOCS / PAGE).read_text(), re.DOTALL | re.MULTILINE)
    with pytest.raises(CheckFailed) as error:
        check_objective(EnqueuesInForward(SPEC), SPEC)
    told = str(error.value).replace("EnqueuesInForward", "AlignUniform").replace("newest", "queue.embeddings")
    assert told == " ".join(shown.split())


def test_the_agent_trains_with_it(method: Any, tmp_path: Path) -> None:
    config = tiny(
        tmp_path / "run",
        agent=AgentConfig(objective="align_uniform", batch_size=4, crop=8, hidden=8, encoder=EncoderConfig(2, (2,), 4)),
        objectives=registry.ObjectiveConfigs(align_uniform=method.AlignUniformConfig(dim=3, weight=0.5)),
    )
    run_directory = trained(config)
    untrained = trained(replace(config, frames=2, run=tmp_path / "untrained"))  # over before the first update
    before, after = head_of(untrained), head_of(run_directory)
    assert [tuple(value.shape) for value in after] == [(3, 4), (3,)]
    assert not any(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    rows = [row for row in read_metrics(run_directory / "metrics.jsonl") if METRICS & row.keys()]
    assert rows
    assert all(row.keys() >= METRICS for row in rows)
    saved = read_config(run_directory / "config.yaml")
    assert saved.agent.objective == "align_uniform"
    assert saved.objectives.align_uniform == method.AlignUniformConfig(dim=3, weight=0.5)


def test_images_train_with_it(method: Any, tmp_path: Path) -> None:
    config = vision_config.VisionConfig(
        method="align_uniform",
        data=str(make_classes(tmp_path / "images", one=6, two=6)),
        epochs=2,
        batch_size=4,
        device="cpu",
        run=tmp_path / "run",
        encoder=BackboneConfig(resnet=ResNetConfig(width=1 / 16, stem="small"), precision="float32"),
        augment=AugmentConfig(size=6),
        objectives=registry.ObjectiveConfigs(align_uniform=method.AlignUniformConfig(dim=3)),
        optimizer=OptimizerConfig("adamw", lr=1e-3, lr_scaling="none"),
        checkpoint=CheckpointConfig(every=3),
        log=LogConfig(every=1, images_every=0, projector=0),
        compute=vision_config.ComputeConfig(threads=1),
    )
    pretrain(config)
    rows = read_metrics(config.directory / "metrics.jsonl", "images")
    assert sum(row.keys() >= METRICS for row in rows) == 6  # two epochs of three steps


def test_a_custom_loop_trains_with_it(page: dict[str, Any]) -> None:
    run(blocks(PAGE)[PLUG_IN], PAGE, page)
    aux = page["aux"]
    assert type(aux.objective) is page["align_uniform"].AlignUniform
    assert all(parameter.grad.abs().sum() > 0 for parameter in aux.new_parameters())
    assert all(parameter.grad.abs().sum() > 0 for parameter in aux.encoder.parameters())


def test_its_settings_are_flags(method: Any, capsys: pytest.CaptureFixture[str]) -> None:
    line = "--env tiny-reach --preset cpu --agent.objective align_uniform --objectives.align_uniform.weight 0.25"
    config, *_ = parse_command_line(line.split(), program="train_agent.py", description="")
    assert config.agent.objective == "align_uniform"
    assert config.objectives.align_uniform == method.AlignUniformConfig(weight=0.25)
    images, _ = vision_config.parse_command_line(
        ["--method", "align_uniform", "--objectives.align_uniform.dim", "7"],
        program="pretrain_vision.py",
        description="",
    )
    assert images.objectives.align_uniform.dim == 7
    for parse, choice in ((parse_command_line, "agent.objective"), (vision_config.parse_command_line, "method")):
        with pytest.raises(SystemExit) as end:
            parse(["--help"], program="command", description="")
        assert end.value.code == 0
        told = " ".join(capsys.readouterr().out.split())
        # Choices in braces, or the types of a field that also takes several methods.
        assert re.search(rf"--{choice} [^)]*\bbarlow\b[^)]*\balign_uniform\b", told)
        assert re.search(r"--objectives\.align_uniform\.weight \S+ Weight of uniformity relative to alignment", told)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--objectives.align_uniform.weight -1", "objectives.align_uniform.weight must be at least 0, got -1"),
        ("--agent.objective align_uniforms", " or align_uniform or none, got align_uniforms"),
    ],
)
@pytest.mark.usefixtures("page")
def test_impossible_settings_are_refused_by_name(arguments: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        parse_command_line(arguments.split(), program="train_agent.py", description="")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unmet_need_is_refused_at_the_start(method: Any, tmp_path: Path) -> None:
    class WithLabels(method.AlignUniform):
        needs = frozenset({"labels", "epochs"})

    registry.register(replace(method.METHOD, name="with_labels", objective=WithLabels, instead="align_uniform"))
    config = tiny(tmp_path / "run", objectives=registry.objective_configs())
    config = replace(config, agent=replace(config.agent, objective="with_labels"))
    lacking = r"^agent.objective with_labels needs epochs and labels, which a replay does not have: take align_uniform$"
    with pytest.raises(UserError, match=lacking):
        trained(config)
    assert not (tmp_path / "run").exists()
    lacking = r"^objective with_labels needs epochs, which a custom training loop does not have"
    with pytest.raises(ValueError, match=lacking):
        AuxiliaryLoss(PixelEncoder((9, 28, 28)), "with_labels")


def test_a_custom_program_brings_it_to_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "align_uniform.py").write_text(blocks(PAGE)[METHOD_FILE])
    (tmp_path / "train.py").write_text(blocks(PAGE)[PROGRAM])
    line = (
        "--env tiny-reach --preset cpu --device cpu --environment.size 12 --agent.crop 10 --agent.batch_size 4 "
        "--agent.hidden 8 --agent.encoder.filters 2 --agent.encoder.strides [2] --agent.encoder.latent 4 "
        "--training.random_steps 20 --evaluation.every 0 --frames 40 --log.every 20 --replay.capacity 100 "
        "--agent.objective align_uniform --objectives.align_uniform.weight 0.5"
    )
    directory = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, tmp_path / "train.py", *line.split(), "--run", directory],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert any(row.keys() >= METRICS for row in read_metrics(directory / "metrics.jsonl"))


def test_one_file_and_one_line_in_a_copy_of_the_package_are_all_there_is_to_it(tmp_path: Path) -> None:
    package = shutil.copytree(ROOT / "curl_rl", tmp_path / "curl_rl", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    (package / "objectives" / "align_uniform.py").write_text(blocks(PAGE)[METHOD_FILE])
    table = package / "objectives" / "registry.py"
    page = (DOCS / PAGE).read_text()
    (line,) = re.findall(r'^Add `(".*",)` to `_FILES` in `curl_rl/objectives/registry.py`', page, flags=re.MULTILINE)
    table.write_text(table.read_text().replace('    "barlow",\n', f'    "barlow",\n    {line}\n'))
    program = (
        "from curl_rl.rl.config import parse_command_line as agent\n"
        "from curl_rl.vision.config import parse_command_line\n"
        "names = {'program': 'p', 'description': 'd'}\n"
        "one = ['--agent.objective', 'align_uniform', '--objectives.align_uniform.weight', '2']\n"
        "two = ['--method', 'align_uniform', '--objectives.align_uniform.dim', '3']\n"
        "print(agent(one, **names)[0].objectives.align_uniform, parse_command_line(two, **names)[0].method)"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path, env=environment
    )
    assert done.stdout.split("\n")[0] == "AlignUniformConfig(dim=128, weight=2.0) align_uniform"
