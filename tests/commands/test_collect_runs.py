"""Runs collected into a file and restored from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from curl_rl.commands.collect_runs import main
from curl_rl.report.long_csv import notes_of
from curl_rl.rl.config import load_preset, read_config, save_config

MADE_BY = ["--command", "train --seed 1", "--command", "train --seed 2", "--commit", "abc", "--machine", "two cores"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = tmp_path / "runs" / "mine"
    run.mkdir(parents=True)
    save_config(load_preset("cpu", "tiny-reach", {"seed": 4, "agent": {"hidden": 99}}), run / "config.yaml")
    rows = [
        {"frames": 0, "wall_time": 1795344025.3814523, "evaluation/return_mean": 2.5},
        {"frames": 500, "wall_time": 1795430425.0, "critic/loss": None, "episode/length": 25},
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


def test_a_run_comes_back_with_its_settings_and_its_metrics_byte_for_byte(run: Path, tmp_path: Path) -> None:
    assert main([str(run.parent), "--out", str(tmp_path / "new" / "x.csv"), *MADE_BY]) == 0
    assert main([str(tmp_path / "new" / "x.csv"), "--restore", str(tmp_path / "again")]) == 0
    (back,) = (tmp_path / "again").rglob("metrics.jsonl")
    assert back.relative_to(tmp_path / "again").parts[:-1] == ("tiny-reach", "cpu_agent.hidden_99", "seed4")
    assert back.read_bytes() == (run / "metrics.jsonl").read_bytes()
    before, after = read_config(run / "config.yaml"), read_config(back.with_name("config.yaml"))
    assert before.schema.changed_fields(before, after) == {}
    assert (after.seed, after.agent.hidden, after.run) == (4, 99, back.parent)


def test_the_first_lines_say_how_the_runs_were_made(run: Path, tmp_path: Path) -> None:
    assert main([str(run), "--out", str(tmp_path / "x.csv"), *MADE_BY]) == 0
    assert notes_of(tmp_path / "x.csv") == {
        "command": ["train --seed 1", "train --seed 2"],
        "commit": ["abc"],
        "machine": ["two cores"],
        "date": ["2026-11-22 to 2026-11-23"],
    }


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--out", "x.csv", "--commit", "abc"], "--out needs --command, --commit and --machine: "),
        (["--restore", "."], ". exists: choose a new folder to restore the runs to"),
        ([], "one of the arguments --out --restore is required"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main([".", *arguments])
    assert ended.value.code == 2
    (found,) = capsys.readouterr().err.splitlines()
    assert f"error: {line}" in found


def test_a_file_leads_nowhere_outside_the_folder(tmp_path: Path) -> None:
    lines = 'exp_name,env_name,seed,metric,env_step,value\n"../../b/..",..,1,m,0,1\n'
    (tmp_path / "x.csv").write_text(lines)
    assert main([str(tmp_path / "x.csv"), "--restore", str(tmp_path / "deep" / "in" / "here")]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"x.csv", "deep"}
    (found,) = tmp_path.rglob("metrics.jsonl")
    assert (tmp_path / "deep" / "in" / "here") in found.resolve().parents
