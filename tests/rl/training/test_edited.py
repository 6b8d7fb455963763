"""Files of text that were edited since the checkpoint was saved: the checkpoint tells, and so does one line."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from curl_rl.rl.loading import load_agent, load_learner
from curl_rl.runs import checkpoint
from curl_rl.runs.errors import UserError
from helpers.corridor import assert_same_run, tiny, trained


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tiny(tmp_path_factory.mktemp("of") / "run", frames=30))


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def edit(file: Path, before: str, after: str) -> None:
    text = file.read_text()
    assert text.count(before) >= 1
    file.write_text(text.replace(before, after, 1))


def test_an_edited_setting_is_told_by_all_who_follow_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(run / "config.yaml", "  discount: 0.99\n", "  discount: 0.9\n")
    line = f"{run / 'config.yaml'} has been edited since the checkpoint was saved, and is followed: "
    line += "agent.discount: 0.99 → 0.9\n"
    for use in (load_agent, load_learner):
        use(run, "cpu")
        assert capsys.readouterr().err.count(line) == 1
    config = tiny(run, frames=40)
    trained(replace(config, agent=replace(config.agent, discount=0.9)))
    assert capsys.readouterr().err.count(line) == 1
    load_agent(run, "cpu")  # the newest checkpoint has been saved with it
    assert "has been edited" not in capsys.readouterr().err


def test_a_setting_that_may_change_and_a_whole_run_are_not_remarked_on(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(run / "config.yaml", "  images_every: 20\n", "  images_every: 0\n")
    load_agent(run, "cpu")
    trained(tiny(run, frames=40))
    said = capsys.readouterr().err
    assert "has been edited" not in said
    assert "has been changed" not in said


def test_a_checkpoint_without_settings_is_not_compared(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As those that earlier versions saved."""

    found = checkpoint.load_newest(run / "checkpoints", read_only=True)
    assert found is not None
    path, state = found
    del state["settings"], state["rows_sha256"]
    names = [segment.name for segment in (run / "checkpoints" / "segments").iterdir()]
    checkpoint.save(run / "checkpoints", int(path.stem), state, attachments=names, keep=1)
    edit(run / "config.yaml", "  discount: 0.99\n", "  discount: 0.9\n")
    load_agent(run, "cpu")
    assert "has been edited" not in capsys.readouterr().err


@pytest.mark.parametrize("at", [pytest.param(0, marks=pytest.mark.slow), 3])
def test_a_changed_row_of_the_log_is_told(
    run: Path, finished: Path, tmp_path: Path, at: int, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    digit = re.search(r"\d(?=[^\d]*$)", lines[at])
    assert digit is not None
    changed = str((int(digit[0]) + 1) % 10)
    lines[at] = lines[at][: digit.start()] + changed + lines[at][digit.end() :]
    (run / "metrics.jsonl").write_text("".join(lines))
    trained(tiny(run, frames=40))
    assert f"{run / 'metrics.jsonl'} has been changed since the checkpoint was saved" in capsys.readouterr().err
    # Once it is known, the next checkpoint is of the log as it is.
    trained(tiny(run, frames=46))
    assert "has been changed" not in capsys.readouterr().err


def test_timings_are_no_content(run: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = run / "metrics.jsonl"
    log.write_text(re.sub(r'"(wall_time|speed/[\w/]+)": [\d.e+-]+', r'"\1": 1.5', log.read_text()))
    trained(tiny(run, frames=40))
    assert "has been changed" not in capsys.readouterr().err
    other = trained(tiny(Path(shutil.copytree(finished, tmp_path / "other")), frames=40))
    assert_same_run(run, other)


def test_a_log_is_not_dropped_because_the_checkpoints_are_gone(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As in a copy that was made for its curves."""
    log = (run / "metrics.jsonl").read_bytes()
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(
        UserError, match=r"has a metrics.jsonl, but its checkpoints are gone: put them back, or .* --fr"
    ):
        trained(tiny(run, frames=40))
    assert (run / "metrics.jsonl").read_bytes() == log
    (run / "checkpoints").mkdir()  # a run that was killed before it saved any
    capsys.readouterr()
    trained(tiny(run, frames=30))
    assert "has no checkpoint: starts over, without the rows of its metrics.jsonl" in capsys.readouterr().err
