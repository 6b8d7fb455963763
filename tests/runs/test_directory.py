"""Ownership of run directories: nothing in them is lost or overwritten by another run."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from curl_rl.rl.config import RunConfig, read_config
from curl_rl.runs import directory as run_directory
from curl_rl.runs.directory import check_room, claimed, kind_of, set_aside
from curl_rl.runs.errors import UserError
from curl_rl.runs.lock import lock_run
from curl_rl.runs.settings import to_dict
from curl_rl.vision import config as vision

CONFIG = RunConfig(device="cpu")


def begun(directory: Path, config: RunConfig = CONFIG) -> Path:
    """A run that has logged something."""
    with claimed(directory, config):
        (directory / "metrics.jsonl").touch()
    return directory


def content(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_a_claimed_directory_holds_the_configuration_and_the_lock(tmp_path: Path) -> None:
    with claimed(tmp_path / "a" / "run", CONFIG):
        assert read_config(tmp_path / "a" / "run" / "config.yaml") == CONFIG
        with pytest.raises(ValueError, match="in use"), lock_run(tmp_path / "a" / "run"):
            pass
    with lock_run(tmp_path / "a" / "run"):
        pass


def test_the_same_configuration_resumes_and_may_change_its_budget(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    with claimed(run, replace(CONFIG, frames=600_000)) as claim:
        claim.record(0)
    assert read_config(run / "config.yaml").frames == 600_000


def test_another_configuration_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    before = content(run)
    other = replace(CONFIG, seed=2, training=replace(CONFIG.training, random_steps=7))
    with pytest.raises(UserError) as refused, claimed(run, other):
        pass
    assert str(refused.value) == (
        f"{run} belongs to a run with other settings (seed: 1 → 2; training.random_steps: 1000 → 7); "
        "choose another --run directory, or set that run aside with --fresh"
    )
    assert content(run) == before


def test_the_settings_of_a_run_that_never_started_may_be_corrected(tmp_path: Path) -> None:
    with claimed(tmp_path / "run", CONFIG):
        pass
    with claimed(tmp_path / "run", replace(CONFIG, seed=2)):
        pass
    assert read_config(tmp_path / "run" / "config.yaml").seed == 2


def test_somebody_elses_directory_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="is not empty and not a run directory"), claimed(tmp_path, CONFIG):
        pass
    assert set_aside(tmp_path) is None
    assert content(tmp_path) == {"thesis.tex": b"years of work"}


@pytest.mark.parametrize("left", ["run.lock", "config.yaml.partial"])
def test_leftovers_of_a_killed_start_do_no_harm(tmp_path: Path, left: str) -> None:
    (tmp_path / left).write_text("12345\n")
    with claimed(tmp_path, CONFIG):
        assert read_config(tmp_path / "config.yaml") == CONFIG


def test_a_run_in_use_is_refused_and_its_configuration_stays(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    with lock_run(run):
        with (
            pytest.raises(UserError, match=f"in use by process {os.getpid()}"),
            claimed(run, replace(CONFIG, frames=9)),
        ):
            pass
        with pytest.raises(UserError, match=f"in use by process {os.getpid()}"):
            set_aside(run)
    assert read_config(run / "config.yaml") == CONFIG


def test_a_directory_that_is_not_writable_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    inside, itself = tmp_path / "file" / "run", tmp_path / "file"
    for place, reason in (
        (inside, f"cannot write to {inside}: Not a directory"),
        (itself, f"run must be a directory, got the file {itself}: choose another --run directory"),
    ):
        with pytest.raises(UserError, match=reason), claimed(place, CONFIG):
            pass


def test_setting_aside_keeps_everything(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    before = content(run)
    aside = set_aside(run)
    assert aside is not None
    assert aside.parent == tmp_path
    assert aside.name.startswith("run.before-")
    # The lock file names the process that last held it.
    assert {**content(aside), "run.lock": b""} == {**before, "run.lock": b""}
    assert not run.exists()
    assert set_aside(run) is None
    assert set_aside(begun(run)) != aside


def test_disk_space_counts_existing_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segments = tmp_path / run_directory.REPLAY_SEGMENTS
    segments.mkdir(parents=True)
    (segments / "segment").write_bytes(bytes(1000))
    (segments.parent / "0000000001.ckpt").write_bytes(bytes(500))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2_000_000_000))
    check_room(tmp_path, 2_000_001_500, "lower replay.capacity")
    with pytest.raises(UserError, match=f"the disk of {tmp_path} has 2.0 GB free, .* need 2.0 GB"):
        check_room(tmp_path, 2_000_001_501, "lower replay.capacity")


def test_a_fresh_run_sets_the_earlier_one_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = begun(tmp_path / "run")
    with claimed(run, replace(CONFIG, seed=2), fresh=True):
        assert not (run / "metrics.jsonl").exists()
    (aside,) = tmp_path.glob("run.before-*")
    assert f"the earlier run is now {aside}" in capsys.readouterr().err
    assert read_config(aside / "config.yaml") == CONFIG


# ---- the kind of a run


def test_a_run_records_its_kind(tmp_path: Path) -> None:
    begun(tmp_path / "agent")
    assert (tmp_path / "agent" / "config.yaml").read_text().startswith("kind: agent\n")
    assert kind_of(tmp_path / "agent") == "agent"
    vision.SCHEMA.save(vision.VisionConfig(), tmp_path / "config.yaml")
    assert kind_of(tmp_path) == "pretraining"


def test_the_kind_of_older_runs_is_inferred_from_their_settings(tmp_path: Path) -> None:
    older = {"agent": RunConfig(device="cpu", seed=5), "pretraining": vision.VisionConfig(seed=5)}
    for kind, config in older.items():
        (tmp_path / kind).mkdir()
        settings = to_dict(config)
        assert "kind" not in settings
        (tmp_path / kind / "config.yaml").write_text(yaml.safe_dump(settings))
        assert kind_of(tmp_path / kind) == kind
    assert read_config(tmp_path / "agent" / "config.yaml") == older["agent"]
    assert vision.read_config(tmp_path / "pretraining" / "config.yaml") == older["pretraining"]
    with claimed(tmp_path / "agent", older["agent"]) as claim:  # resuming the run writes its kind
        claim.record(0)
        assert (tmp_path / "agent" / "config.yaml").read_text().startswith("kind: agent\n")


def test_an_unknown_kind_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("kind: cake\n")
    message = r"config.yaml: kind must be agent, pretraining, detection, text or pairs, got cake: .*update curl_rl\Z"
    with pytest.raises(UserError, match=message):
        kind_of(tmp_path)
