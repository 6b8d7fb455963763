"""A run directory of somebody else: links in the place of its files and folders reach nothing outside.

Every file and folder that a run writes is replaced by a link in turn. Whatever the commands do then, with success or
with an error of one line, the files outside must be as before.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from curl_rl.artifacts.encoder_file import load_encoder
from curl_rl.rl.loading import load_agent
from curl_rl.rl.training import train
from curl_rl.runs.errors import TrainingFault, UserError
from helpers.corridor import environments, tiny, trained

# Written only on a fault, or left only by a kill.
ALSO = [
    "fault.txt",
    "config.yaml.partial",
    "metrics.jsonl.partial",
    "encoder.json.partial",
    "encoder.safetensors.partial",
]
ALSO += ["checkpoints/0000000061.ckpt.partial", "checkpoints/0000000062.ckpt.partial"]
REFUSED = ["run.lock", "metrics.jsonl", "checkpoints", "checkpoints/segments", "videos"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tiny(tmp_path_factory.mktemp("of") / "run", frames=60))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def moved_outside(path: Path, outside: Path, kind: str) -> None:
    """Puts a link in the place of a file or folder, to it or (if it is absent) to a file of somebody's."""
    target = outside / path.name
    outside.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(path):
        shutil.move(path, target)
    else:
        target.write_text("precious")
    if target.is_dir():
        (target / "precious.txt").write_text("precious")
        (target / "segment-0000000000-0000000001.safetensors").write_text("precious")
        (target / "9999999999.ckpt.partial").write_text("precious")
    if kind == "hard":
        os.link(target, path)
    else:
        path.symlink_to(target)


def used(run: Path) -> list[str]:
    """Resumes the run, also with a fault and afresh, and loads what it has; returns the refusals."""

    def failing(step: int) -> None:
        if step == 4:
            raise RuntimeError("the simulator is broken")

    refusals = []
    for use in (
        lambda: load_agent(run, "cpu"),
        lambda: load_encoder(run),
        lambda: trained(tiny(run, frames=80), failing),
        lambda: trained(tiny(run, frames=90)),
        lambda: train(tiny(run, frames=10), environments(), fresh=True),
    ):
        try:
            use()
        except (UserError, TrainingFault) as error:
            refusals.append(str(error))
    assert not any("\n" in refusal for refusal in refusals)
    return refusals


@pytest.mark.parametrize("kind", ["symbolic", pytest.param("hard", marks=pytest.mark.slow)])
def test_files_that_are_links_are_replaced(finished: Path, tmp_path: Path, kind: str) -> None:
    run, outside = shutil.copytree(finished, tmp_path / "run"), tmp_path / "outside"
    files = [str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()]
    for number, name in enumerate([name for name in files if name not in REFUSED] + ALSO):
        moved_outside(run / name, outside / str(number), kind)
    before = contents(outside)
    assert len(before) > 15
    refusals = used(run)
    assert len(refusals) == 1, "the fault alone"
    assert "the simulator is broken" in refusals[0]
    assert contents(outside) == before


@pytest.mark.parametrize("name", REFUSED)
def test_folders_and_files_written_in_place_are_refused_as_links(finished: Path, tmp_path: Path, name: str) -> None:
    run, outside = shutil.copytree(finished, tmp_path / "run"), tmp_path / "outside"
    moved_outside(run / name, outside, "symbolic")
    before = contents(outside)
    with pytest.raises(UserError, match=rf"^{run / name} is a link, and a run writes only inside its own directory"):
        trained(tiny(run, frames=80))
    assert contents(outside) == before


def test_the_list_of_changed_settings_is_not_written_through_a_link(finished: Path, tmp_path: Path) -> None:
    run, outside = shutil.copytree(finished, tmp_path / "run"), tmp_path / "outside"
    for kind, message in (("symbolic", "is a link"), ("hard", "has a hard link elsewhere")):
        moved_outside(run / "changes.jsonl", outside, kind)
        before = contents(outside)
        with pytest.raises(UserError, match=f"changes.jsonl {message}"):
            trained(tiny(run, frames=80))
        assert contents(outside) == before
        (run / "changes.jsonl").unlink()
        (outside / "changes.jsonl").unlink()


def everything(finished: Path) -> Iterator[str]:
    yield from (str(path.relative_to(finished)) for path in sorted(finished.rglob("*")))
    yield from ALSO


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["symbolic", "hard"])
def test_no_link_in_the_place_of_any_single_file_reaches_outside(finished: Path, tmp_path: Path, kind: str) -> None:
    for number, name in enumerate(everything(finished)):
        if kind == "hard" and (finished / name).is_dir():
            continue
        run, outside = shutil.copytree(finished, tmp_path / f"run{number}"), tmp_path / f"outside{number}"
        moved_outside(run / name, outside, kind)
        before = contents(outside)
        used(run)
        assert contents(outside) == before, name


def test_the_run_directory_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "data" / "run").mkdir(parents=True)
    (tmp_path / "run").symlink_to(tmp_path / "data" / "run")
    trained(tiny(tmp_path / "run", frames=20))
    trained(tiny(tmp_path / "run", frames=30))
    assert load_agent(tmp_path / "data" / "run", "cpu")[2] >= 30
