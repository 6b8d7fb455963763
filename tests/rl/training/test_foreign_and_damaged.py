"""Checkpoints that do not fit the run, replays that are damaged in every checkpoint, and files cut short."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from curl_rl.rl.config import parse_command_line
from curl_rl.rl.loading import load_agent, load_learner
from curl_rl.rl.training import train
from curl_rl.runs import checkpoint
from curl_rl.runs.errors import UserError
from helpers.corridor import differing, environments, networks, rows, state, tiny, trained


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tiny(tmp_path_factory.mktemp("of") / "run", frames=60))


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def checkpoints(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").glob("*.ckpt"))


def without(state: Any, name: str) -> Any:
    return {key: value for key, value in state.items() if key != name}


def changed(name: str, value: Any) -> Any:
    return lambda state: {**state, name: value}


FOREIGN = {
    "empty": lambda state: {},
    "of another seed": changed("run", {"env": "corridor", "preset": "curl", "seed": 4}),
    "of pretraining": lambda state: {"learner": {"steps": 3}, "probe": None, "images": 9, "means": state["means"]},
    "of other networks": lambda state: {
        **state,
        "agent": {**state["agent"], "networks": {n: v[:1] for n, v in state["agent"]["networks"].items() if v.ndim}},
    },
    "of another optimizer": lambda state: {**state, "agent": {**state["agent"], "optimizers": {}}},
    "with numbers for sections": lambda state: dict.fromkeys(state, 3),
    "with lists for sections": lambda state: {name: [value] for name, value in state.items()},
    **{f"without {name}": (lambda state, name=name: without(state, name)) for name in
       ("agent", "replay", "progress", "generators", "random", "means")},
    "of another replay": lambda state: {**state, "replay": {**state["replay"], "capacity": 21}},
    "with wrong segments": lambda state: {**state, "replay": {**state["replay"], "streams": [{"segments": [{}]}]}},
    "with random states cut short": changed("generators", {"devices": ["cpu", "cpu"], "states": [torch.zeros(3)] * 2}),
}  # fmt: skip


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_checkpoint_of_another_run_is_refused_in_one_line(run: Path, kind: str) -> None:
    newest = checkpoints(run)[-1]
    found = checkpoint.load_newest(run / "checkpoints", read_only=True)
    assert found is not None
    shutil.rmtree(run / "checkpoints")
    checkpoint.save(run / "checkpoints", int(newest.stem), FOREIGN[kind](found[1]))
    for use in (lambda: trained(tiny(run, frames=80)), lambda: load_learner(run, "cpu")):
        with pytest.raises(
            UserError, match=rf"^none of the 1 checkpoints in .*{newest.name} cannot be used \("
        ) as caught:
            use()
        assert "\n" not in str(caught.value)


def test_the_runs_own_checkpoint_is_used_instead(run: Path) -> None:
    own, newest = checkpoints(run)
    found = checkpoint.load_newest(run / "checkpoints", read_only=True)
    assert found is not None
    other = run.parent / "other"
    checkpoint.save(other, 80, {**found[1], "run": {"env": "another", "preset": "curl", "seed": 3}})
    newest.unlink()
    shutil.copy(other / "0000000080.ckpt", run / "checkpoints")
    with pytest.warns(RuntimeWarning, match=r"it is of another run.*another.*; using"):
        trained(tiny(run, frames=70))
    assert (run / "checkpoints" / "0000000080.ckpt.damaged").is_file()
    assert own.is_file() or state(run)["/progress/frames"] >= 70


# ---- a segment that every checkpoint needs


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def shared_segment(run: Path) -> Path:
    """A segment that both checkpoints list."""
    listed = []
    for path in checkpoints(run):
        listed.append({name for name in os.listdir(run / "checkpoints/segments") if name.encode() in path.read_bytes()})
    return run / "checkpoints/segments" / sorted(set.intersection(*listed))[0]


@pytest.mark.parametrize("damage", [flip, Path.unlink])
def test_a_run_is_salvaged_from_a_damaged_replay(
    run: Path, finished: Path, capsys: pytest.CaptureFixture[str], damage: Any
) -> None:
    damage(shared_segment(run))
    with pytest.raises(UserError, match=r"none of the 2 .*--salvage continues without what they held$"):
        trained(tiny(run, frames=80))
    capsys.readouterr()
    # With nothing left to train, the networks are those of the checkpoint.
    train(tiny(run, frames=60), environments(), salvage=True)
    said = capsys.readouterr().err
    assert "salvaged at" in said
    assert "the networks are whole" in said
    before = networks(finished)
    agent, *_ = load_agent(run, "cpu")
    assert all(torch.equal(value, before[f"/agent/networks/{name}"]) for name, value in agent.state_dict().items())
    train(tiny(run, frames=80), environments(), salvage=True)
    trained(tiny(run, frames=90))  # whole again
    assert state(run)["/progress/frames"] >= 90
    assert [row for row in rows(run) if row["frames"] <= 50] == [row for row in rows(finished) if row["frames"] <= 50]


def test_salvage_changes_nothing_about_a_whole_run(run: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(run, tmp_path / "other"))
    trained(tiny(run, frames=64), global_seed=1)
    trained_salvaging = train(tiny(other, frames=64), environments(), salvage=True)
    assert differing(state(run), state(trained_salvaging)) == []


def test_a_replay_of_which_nothing_is_left_is_filled_anew(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    shutil.rmtree(run / "checkpoints/segments")
    train(replace(tiny(run, frames=80)), environments(), salvage=True)
    assert state(run)["/progress/frames"] >= 80


def test_fresh_and_salvage_exclude_each_other() -> None:
    assert parse_command_line(["--salvage"], program="p", description="")[1:] == (False, True)
    with pytest.raises(UserError, match="--fresh starts a new run and --salvage continues the earlier one"):
        parse_command_line(["--salvage", "--fresh"], program="p", description="")


# ---- files cut short, and rows that are gone


def test_a_configuration_cut_short_is_refused_by_all_readers(run: Path) -> None:
    whole = (run / "config.yaml").read_bytes()
    cut = whole[: whole.index(b"replay:")]
    (run / "config.yaml").write_bytes(cut)
    for use in (lambda: load_agent(run, "cpu"), lambda: trained(tiny(run, frames=80))):
        with pytest.raises(UserError, match=r"config\.yaml is damaged: it holds \d+ of its \d+ settings; restore it"):
            use()
    assert (run / "config.yaml").read_bytes() == cut


def test_lost_rows_of_the_log_are_reported(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    trained(tiny(run, frames=70))
    assert "has lost" not in capsys.readouterr().err
    (run / "metrics.jsonl").write_bytes(b"".join(lines[3:]))
    capsys.readouterr()
    trained(tiny(run, frames=80))
    assert f"{run / 'metrics.jsonl'} has lost" in capsys.readouterr().err
