"""Every Python block of docs/ runs: page by page, in order, with a separate namespace and directory for each page."""

from __future__ import annotations

import copy
import importlib.util
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from curl_rl import auxiliary
from curl_rl.artifacts.encoder_file import save_encoder
from curl_rl.encoders import PixelEncoder
from curl_rl.objectives import ObjectiveConfigs
from curl_rl.rl.config import load_preset
from helpers.pages import DOCS, blocks, run

PAGES = ["auxiliary_loss.md", "encoders.md", "frames.md", "images.md", "integrations.md", "transfer.md"]
ADDED = "# +"
# Optional libraries that blocks import.
OPTIONAL = ("stable_baselines3", "tensordict", "onnxruntime", "huggingface_hub")


@pytest.fixture(autouse=True)
def _directory_with_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    directory = tmp_path / "runs" / "tiny-reach" / "cpu" / "seed1"
    directory.mkdir(parents=True)
    # As the README's first command leaves it: train_agent.py --env tiny-reach --preset cpu
    config = load_preset("cpu", "tiny-reach")
    shape = (3 * config.environment.stack, config.agent.crop, config.agent.crop)
    assert (shape, config.environment.size) == ((9, 28, 28), 32), "the pages name these sizes"
    encoder = PixelEncoder(shape, config.agent.encoder)
    provenance = {"env": config.env, "preset": config.preset, "seed": config.seed, "frames": config.frames}
    save_encoder(encoder, directory, rendered_size=config.environment.size, provenance=provenance)


@pytest.mark.parametrize("page", PAGES)
def test_blocks_run_in_order(page: str) -> None:
    found = blocks(page)
    assert found
    namespace: dict[str, Any] = {"__name__": "docs"}
    for block in found:
        if "digits" in block:
            pytest.importorskip("sklearn")
        absent = [name for name in OPTIONAL if name in block and importlib.util.find_spec(name) is None]
        if absent:
            pytest.skip(f"{absent[0]} is not installed: this block and those after it are left out")
        run(block, page, namespace)


def test_the_options_of_methods_that_a_page_names_are_there() -> None:
    table = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", (DOCS / "images.md").read_text(), flags=re.MULTILINE)
    assert [method for method, _ in table] == ["simclr", "moco", "byol", "simsiam", "barlow", "curl"]
    for method, options in table:
        named = re.findall(r"`(\w+)`", options)
        assert named
        assert set(named) <= vars(getattr(ObjectiveConfigs(), method)).keys(), method


# Options that make a page's commands small enough for a test, by script; later options override earlier ones.
SHORTENED = {
    "pretrain_vision": "--epochs 1 --optimizer.warmup_epochs 0 --encoder.resnet.width 0.0625 --log.projector 0",
    "finetune_vision": "--epochs 2",
    "distill_vision": "--epochs 1",
}


@pytest.mark.slow
def test_the_recipe_of_simclr_v2_runs_as_it_stands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn")
    page = (DOCS / "simclr_v2.md").read_text()
    commands = re.findall(r"^python scripts/(\w+)\.py (.*)$", page, flags=re.MULTILINE)
    assert [name for name, _ in commands] == ["pretrain_vision", "finetune_vision", "distill_vision", "distill_vision"]
    for name, line in commands:
        monkeypatch.setattr("sys.argv", [name, *line.split(), *SHORTENED[name].split(), "--device", "cpu"])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(DOCS.parent / "scripts" / f"{name}.py"), run_name="__main__")
        assert ended.value.code == 0
    namespace: dict[str, Any] = {"__name__": "docs"}
    for block in blocks("simclr_v2.md"):
        run(block, "simclr_v2.md", namespace)
    assert namespace["logits"].shape == (2, 10)
    assert namespace["classifier"].classes == tuple("0123456789")
    assert capsys.readouterr().out.count("of the test images") == 3


def _examples() -> dict[str, str]:
    """The complete programs that the page about the loss shows or names, by algorithm."""
    programs = [block for block in blocks("auxiliary_loss.md") if ADDED in block]
    sac = DOCS.parent / "examples" / "your_sac_with_curl.py"
    assert "(../examples/your_sac_with_curl.py)" in (DOCS / "auxiliary_loss.md").read_text()
    return {"sac": sac.read_text(), **dict(zip(("ppo", "dqn"), programs, strict=True))}


@pytest.mark.parametrize("name", ["sac", "ppo", "dqn"])
def test_example_gains_the_loss_in_under_ten_lines(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[Any, list[torch.Tensor]]] = []

    class Recorded(auxiliary.AuxiliaryLoss):
        def __init__(self, encoder: Any, *args: Any, **kwargs: Any) -> None:
            super().__init__(encoder, *args, **kwargs)
            made.append((self, copy.deepcopy([*encoder.parameters(), *self.new_parameters()])))

    monkeypatch.setattr("curl_rl.AuxiliaryLoss", Recorded)
    monkeypatch.setattr("sys.argv", [name, "--steps", "60", "--random_steps", "40"])  # read by sac alone
    program = _examples()[name]
    run(program, "auxiliary_loss.md", {"__name__": "__main__"})
    ((aux, start),) = made
    assert aux.steps > 2
    heads = aux.new_parameters()
    changed = [not torch.equal(a, b) for a, b in zip(start, [*aux.encoder.parameters(), *heads], strict=True)]
    # A bias before batch norm has a negligible gradient; all other parameters have one.
    assert sum(changed) > 0.8 * len(changed)
    assert any(changed[-len(heads) :])

    added = [line for line in program.splitlines() if line.endswith(ADDED)]
    assert 0 < len(added) < 10
    without = "\n".join("" if line.endswith(ADDED) else line for line in program.splitlines())
    assert not re.search(r"\baux\b|AuxiliaryLoss\(", without)
    made.clear()
    run(without, "auxiliary_loss.md", {"__name__": "__main__"})
    assert not made
