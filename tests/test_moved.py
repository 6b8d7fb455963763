"""Everything that was importable before the package had rooms still is, under its former name."""

from __future__ import annotations

import ast
import importlib
import json
import sys
import warnings
from pathlib import Path

import pytest

import curl_rl.runs.seeds
from curl_rl.moved import MOVED

ROOT = Path(__file__).resolve().parent.parent
# Public names by module, read from the sources of the last version without rooms.
EARLIER: dict[str, list[str]] = json.loads((ROOT / "tests" / "data" / "earlier_names.json").read_text())
# Names that no longer exist, with their replacements.
WITHDRAWN = {
    # American spelling: random_grayscale, random_solarize, solarize, warn_about_unseen_classes.
    "curl_rl.augment": {"random_greyscale", "random_solarise", "solarise"},
    "curl_rl.vision.data": {"say_what_cannot_be_learnt"},
    # Now internal to run sessions: curl_rl.runs.session, curl_rl.runs.faults.
    "curl_rl.checkpoint": {"not_finite"},
    "curl_rl.run_directory": {"fault", "is_of_pretraining", "not_finite"},
    "curl_rl.vision.pretraining": {"AXIS"},
    "curl_rl.export": {"describe_encoder", "described_encoder"},  # Encoder.describe and curl_rl.encoders.build_encoder
    "curl_rl.network_file": {"described"},  # a check of those
    # Parts of a curl_rl.artifacts.programs.Program.
    "curl_rl.deployment": {"about", "dynamic_shapes", "example", "traceable"},
    # Now attributes of every Encoder: precision, input_shape.
    "curl_rl.vision.learner": {"Backbone", "compute_in", "precision_of", "side_of"},
    "curl_rl.vision.config": {"Method"},  # names of methods in a Literal: any name in curl_rl.objectives.METHODS
}


@pytest.fixture(autouse=True)
def _nothing_imported_by_an_earlier_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in MOVED:
        monkeypatch.delitem(sys.modules, name, raising=False)
        package, _, attribute = name.rpartition(".")
        monkeypatch.delattr(importlib.import_module(package), attribute, raising=False)


@pytest.mark.parametrize("module", sorted(EARLIER))
@pytest.mark.filterwarnings("ignore:.* has moved:DeprecationWarning")
def test_every_public_name_is_where_it_was(module: str) -> None:
    if module.startswith("curl_rl.integrations."):
        pytest.importorskip({"hub": "huggingface_hub"}.get(module.rpartition(".")[2], module.rpartition(".")[2]))
    found = importlib.import_module(module)
    assert {name for name in EARLIER[module] if not hasattr(found, name)} == WITHDRAWN.get(module, set())


@pytest.mark.parametrize("module", sorted(MOVED))
def test_one_warning_names_the_new_place_and_the_line_that_imports(module: str) -> None:
    assert module in EARLIER, "a row for a module that never was"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            exec(compile(f"import {module}", __file__, "exec"), {})
    (warning,) = (each for each in caught if "has moved" in str(each.message))
    assert warning.category is DeprecationWarning
    assert warning.filename == __file__
    assert str(warning.message) == f"{module} has moved: import from {' or '.join(MOVED[module])}"


def test_names_of_a_module_that_was_split_come_from_both_places() -> None:
    space: dict[str, object] = {}
    with pytest.warns(DeprecationWarning, match="objectives.momentum or curl_rl.objectives.banks"):
        exec("from curl_rl.memory import *", space)
    assert (space["Ring"], space["momentum_copy"]) == (
        importlib.import_module("curl_rl.objectives.banks").Ring,
        importlib.import_module("curl_rl.objectives.momentum").momentum_copy,
    )


def test_an_earlier_name_follows_the_new_module(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.warns(DeprecationWarning, match="import from curl_rl.runs.seeds"):
        from curl_rl import seeds  # type: ignore[attr-defined]
    monkeypatch.setattr(curl_rl.runs.seeds, "derived_seed", "replaced")
    assert seeds.derived_seed == "replaced"
    with pytest.raises(AttributeError, match="no attribute 'shuffle': import from curl_rl.runs.seeds$"):
        _ = seeds.shuffle


def test_names_that_never_existed_are_not_found() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"curl_rl\.agents"):
        importlib.import_module("curl_rl.agents")


def test_nothing_here_imports_an_earlier_name() -> None:
    for folder in ("curl_rl", "envs", "scripts", "benchmarks", "examples", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and path != Path(__file__):
                    names = [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
                assert not MOVED.keys() & set(names), path


@pytest.mark.filterwarnings("ignore:.* has moved:DeprecationWarning")
def test_a_name_that_is_gone_says_what_took_its_place() -> None:
    with pytest.raises(AttributeError, match="no attribute 'side_of': use the attribute input_shape of every encoder"):
        _ = importlib.import_module("curl_rl.vision.learner").side_of
