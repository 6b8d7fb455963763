"""The table of methods: the types built from it, and methods registered later."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from curl_rl.encoders import FeatureSpec
from curl_rl.objectives import METHODS, Need, ObjectiveConfigs, ObjectiveUser, build_objective, registry
from curl_rl.rl.agent import AgentConfig
from curl_rl.rl.config import SCHEMA, RunConfig, read_config
from curl_rl.runs.errors import UserError
from helpers.dummy_objectives import DUMMIES, DummyConfig, Local
from helpers.registry import restored_registry

OBJECTIVES = Path(registry.__file__).parent
SPEC = FeatureSpec(6, (2, 3, 3))


@pytest.fixture
def table() -> Iterator[None]:
    """Restores the registry afterwards."""
    with restored_registry():
        yield


def test_every_file_of_a_method_is_in_the_table() -> None:
    declaring = {path.stem for path in OBJECTIVES.glob("*.py") if "\nMETHOD = Method(" in path.read_text()}
    assert declaring == {method.objective.__module__.rpartition(".")[2] for method in METHODS.values()}
    assert declaring


def test_names_and_settings_are_the_tables() -> None:
    assert get_args(registry.MethodName) == tuple(METHODS)
    assert get_args(registry.ObjectiveName) == (*METHODS, "none")
    fields = {field.name: field.default_factory for field in dataclasses.fields(ObjectiveConfigs)}  # type: ignore[arg-type]
    assert fields == {name: method.config for name, method in METHODS.items()}


def test_the_documentations_table_is_the_registrys() -> None:
    docs = OBJECTIVES.parents[1] / "docs"
    pages = {page.stem for page in (docs / "methods").glob("*.md")}
    assert pages <= set(METHODS)
    table = registry.markdown_table(pages)
    assert table in (docs / "methods.md").read_text(), f"docs/methods.md: paste registry.markdown_table({pages})"
    assert "| [`swav`](methods/swav.md) | Caron et al. 2020, arXiv 2006.09882 |" in table


def test_papers_are_named_by_their_arxiv_number_or_venue_where_the_method_is() -> None:
    for name, method in METHODS.items():
        source = (OBJECTIVES / f"{name}.py").read_text()
        number = method.paper.rpartition(" ")[2]
        assert source.index(number) < source.index("import"), f"{name}.py names {number} at its top"


@pytest.mark.usefixtures("table")
def test_a_registered_method_joins_names_settings_and_the_builder() -> None:
    older = ObjectiveConfigs()
    registry.register(DUMMIES["local"])
    assert "local" in get_args(registry.ObjectiveName)
    assert registry.objective_configs().local == DummyConfig()
    for configs in (older, None, registry.ObjectiveConfigs(local=DummyConfig(scale=2.0))):
        assert isinstance(build_objective("local", SPEC, configs), Local)
    with pytest.raises(ValueError, match="the name of a method must be new, got 'local', which is taken"):
        registry.register(DUMMIES["local"])


def test_usable_methods_need_no_more_than_is_offered() -> None:
    assert registry.usable(frozenset(get_args(Need))) == tuple(METHODS)
    assert "simclr" in registry.usable(())
    assert not {"clip", "simcse", "supcon"} & {*registry.usable({"actions"})}
    with pytest.raises(ValueError, match=r"the methods are (?:(?!clip)[^;])*; did you mean clip\?$"):
        build_objective("clop", SPEC, user=ObjectiveUser("method", "a folder", frozenset({"labels"})))


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match=r"^unknown objective 'simclear': the methods are curl, .*; did you mean simclr\?$"
    ):
        build_objective("simclear", SPEC)


@pytest.mark.usefixtures("table")
def test_settings_made_before_a_method_was_registered_are_pickled_and_compared() -> None:
    older = RunConfig(frames=7)
    pickled = pickle.dumps(older)
    registry.register(DUMMIES["local"])
    assert older.schema.changed_fields(older, RunConfig(frames=7)) == {}
    for read in (pickle.loads(pickled), pickle.loads(pickle.dumps(older)), copy.deepcopy(older)):
        assert read == RunConfig(frames=7)
        assert read.objectives.local == DummyConfig()
    newer = pickle.dumps(RunConfig(objectives=registry.ObjectiveConfigs(local=DummyConfig(scale=2.0))))
    assert pickle.loads(newer).objectives.local.scale == 2.0


def test_a_run_is_read_by_a_process_that_does_not_know_a_method_which_the_run_does_not_use(tmp_path: Path) -> None:
    with restored_registry():
        registry.register(DUMMIES["local"])
        SCHEMA.save(RunConfig(frames=7), tmp_path / "other.yaml")
        SCHEMA.save(RunConfig(frames=7, agent=AgentConfig(objective="local")), tmp_path / "own.yaml")
    assert "local:" in (tmp_path / "other.yaml").read_text()
    assert read_config(tmp_path / "other.yaml") == RunConfig(frames=7)
    with pytest.raises(UserError, match=r"agent\.objective must be curl or simclr .* or none, got local"):
        read_config(tmp_path / "own.yaml")
    written = (tmp_path / "other.yaml").read_text()
    (tmp_path / "other.yaml").write_text(written.replace("objectives:\n", "objectivs:\n"))
    with pytest.raises(UserError, match="unknown setting objectivs; did you mean objectives"):
        read_config(tmp_path / "other.yaml")
