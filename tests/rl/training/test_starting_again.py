"""Commands on a directory that already has a run: the same one, another one, a fresh one."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from curl_rl.rl import checks as run_checks
from curl_rl.rl import loading as run_agent
from curl_rl.rl import training
from curl_rl.rl.agent import Agent
from curl_rl.rl.checks import check_device
from curl_rl.rl.config import (
    ComputeConfig,
    EvaluationConfig,
    LogConfig,
    UserError,
)
from curl_rl.rl.loading import load_agent
from curl_rl.rl.replay import ReplayConfig
from curl_rl.rl.training import TrainingFault, train
from curl_rl.runs.lock import lock_run
from helpers.corridor import differing, environments, resumed, rows, state, tiny, trained


def test_a_complete_run_is_reported_and_a_larger_budget_extends_it(
    undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny(tmp_path / "run", frames=38)
    trained(config)
    before = state(tmp_path / "run")
    capsys.readouterr()
    resumed(config)
    assert re.search(r"this run is complete at \d+ frames; --frames extends it", capsys.readouterr().err)
    assert differing(before, state(tmp_path / "run")) == []
    resumed(replace(config, frames=60))
    # The end of the smaller budget adds two rows (the metrics so far, which the next row then leaves out, and an
    # evaluation), which the checkpoint counts and hashes, and changes nothing else.
    assert differing(state(undisturbed), state(tmp_path / "run")) == ["/rows", "/rows_sha256"]
    more = [row for row in rows(tmp_path / "run") if row not in rows(undisturbed)]
    end = before["/progress/frames"]
    assert [(row["frames"] == end, "evaluation/return_mean" in row) for row in more[:2]] == [
        (True, False),
        (True, True),
    ]
    assert ["critic/loss" in row for row in more] == [True, False, True]


def test_compute_and_log_may_change(tmp_path: Path) -> None:
    config = tiny(tmp_path / "run", frames=20)
    trained(config)
    trained(replace(config, frames=30, compute=ComputeConfig(threads=1), log=LogConfig(every=3)))
    assert state(tmp_path / "run")["/progress/frames"] >= 30


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 4}, "seed: 3 → 4"),
        ({"replay": ReplayConfig(capacity=21)}, "replay.capacity: 20 → 21"),
        ({"evaluation": EvaluationConfig(every=20, episodes=3)}, "evaluation.episodes: 2 → 3"),
    ],
)
def test_any_other_change_is_refused_by_name(
    undisturbed: Path, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    run = shutil.copytree(undisturbed, tmp_path / "run")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=named):
        trained(tiny(run, **change))
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_automatic_precision_is_the_same_setting_on_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(tmp_path, frames=30)
    automatic = replace(config, agent=replace(config.agent, precision="auto"))
    found = []
    for precision in ("bfloat16", "float32"):
        for module in (run_agent, run_checks):
            monkeypatch.setattr(module, "resolve_precision", lambda *_, precision=precision: precision)
        trained(replace(automatic, frames=automatic.frames + 10 * len(found)))
        found.append(load_agent(tmp_path, "cpu")[0].config.precision)
    assert found == ["bfloat16", "float32"]


def test_settings_are_compared_while_there_is_a_checkpoint(tmp_path: Path) -> None:
    trained(tiny(tmp_path, frames=30))
    (tmp_path / "metrics.jsonl").unlink()
    with pytest.raises(UserError, match="seed: 3 → 4"):
        trained(tiny(tmp_path, frames=30, seed=4))


def test_fresh_renames_and_never_deletes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny(tmp_path / "run", frames=20)
    trained(config)
    before = {p.relative_to(tmp_path / "run"): p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    train(replace(config, seed=9), environments(), fresh=True)
    (aside,) = [path for path in tmp_path.iterdir() if path.name != "run"]
    assert f"the earlier run is now {aside}" in capsys.readouterr().err
    assert {p.relative_to(aside): p.read_bytes() for p in aside.rglob("*") if p.is_file()} == before
    assert state(tmp_path / "run")["/progress/frames"] >= 20


@pytest.mark.parametrize("where", ["estimate", "update"])
def test_too_little_memory_is_the_agents_fault_and_not_the_environments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """PyTorch has no dedicated exception for a CPU without memory."""

    def no_room(*_: Any, **__: Any) -> NoReturn:
        torch.empty(2**62, dtype=torch.uint8)
        raise AssertionError("no machine has this much memory")

    if where == "update":
        monkeypatch.setattr(training.Learner, "update", no_room)
    else:
        monkeypatch.setattr(Agent, "update", no_room)
    with pytest.raises(TrainingFault, match=r"lower agent\.batch_size"):
        trained(tiny(tmp_path))


def test_a_replay_without_room_is_refused_before_a_run_is_set_aside(undisturbed: Path, tmp_path: Path) -> None:
    run = shutil.copytree(undisturbed, tmp_path / "run")
    config = tiny(run)
    config = replace(config, replay=replace(config.replay, capacity=9 * 10**13, storage="memory"))
    with pytest.raises(UserError, match="the replay needs .* and .* of memory is available"):
        train(config, environments(), fresh=True)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    ("device", "capture", "storage", "message"),
    [
        ("cpu", True, "auto", "compute.capture: cpu has no CUDA graphs"),
        (
            "cuda:0",
            True,
            "memory",
            "compute.capture needs the replay on the GPU, got a replay in memory",
        ),
    ],
)
def test_an_unsupported_device_setting_is_refused_before_a_run_is_set_aside(
    undisturbed: Path, tmp_path: Path, device: str, capture: bool, storage: Any, message: str
) -> None:
    run = shutil.copytree(undisturbed, tmp_path / "run")
    config = tiny(run)
    config = replace(
        config, compute=replace(config.compute, capture=capture), replay=replace(config.replay, storage=storage)
    )
    with pytest.raises(UserError, match=message):
        check_device(config, torch.device(device))
    if device == "cpu":
        with pytest.raises(UserError, match=message):
            train(config, environments(), fresh=True)
        assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("capture", [False, True])
def test_a_run_finds_the_gpu_by_itself(tmp_path: Path, capture: bool) -> None:
    config = tiny(tmp_path / "run")
    config = replace(config, device="auto", compute=replace(config.compute, capture=capture))
    train(config, environments())
    assert state(tmp_path / "run")["/progress/frames"] >= config.frames
    assert "device: cuda:0" in (tmp_path / "run" / "config.yaml").read_text()


def test_a_second_process_is_refused_and_changes_nothing(undisturbed: Path, tmp_path: Path) -> None:
    run = shutil.copytree(undisturbed, tmp_path / "run")
    before = (run / "config.yaml").read_bytes()
    with (
        lock_run(run),
        pytest.raises(UserError, match=f"{run} is in use by process {os.getpid()}"),
    ):
        trained(tiny(run, frames=90))
    assert (run / "config.yaml").read_bytes() == before
