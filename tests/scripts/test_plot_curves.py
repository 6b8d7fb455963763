"""The command as a user types it; the picture is tested with the library that draws it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from curl_rl.commands.plot_curves import main

pytest.importorskip("matplotlib")
SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "plot_curves.py"


def test_no_runs_are_one_line_and_exit_code_2(tmp_path: Path) -> None:
    result = subprocess.run([sys.executable, SCRIPT, tmp_path], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith(f"plot_curves.py: error: no run with an evaluation below {tmp_path}: curves ")
    assert result.stderr.count("\n") == 1


RUNS = """exp_name,env_name,seed,metric,env_step,value
cpu,a-task,1,evaluation/return_mean,0,1
cpu,a-task,1,evaluation/return_mean,10,5
cpu,a-task,2,evaluation/return_mean,0,3
cpu,a-task,2,evaluation/return_mean,10,9
sac,a-task,1,evaluation/return_mean,0,1
sac,a-task,1,evaluation/return_mean,10,4
"""


@pytest.fixture
def runs(tmp_path: Path) -> str:
    (tmp_path / "runs.csv").write_text(RUNS)
    return str(tmp_path / "runs.csv")


@pytest.mark.parametrize("kind", ["curves", "profiles", "improvement"])
def test_each_kind_of_picture_is_written(kind: str, runs: str, tmp_path: Path) -> None:
    assert main([runs, "--kind", kind, "--out", str(tmp_path / "new" / "x.svg")]) == 0
    assert (tmp_path / "new" / "x.svg").read_text().rstrip().endswith("</svg>")


def test_the_table_is_printed(runs: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([runs, "--kind", "table", "--at", "0", "10", "--reach", "5"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[2] == (
        "| a-task | cpu | 2.00 ± 1.41 [1.00, 3.00] (2 seeds) | 7.00 ± 2.83 [5.00, 9.00] (2 seeds) | 4.50 (to 10) "
        "| 10 (2 of 2 seeds) |"
    )
    assert printed[3].startswith("| a-task | sac | 1.00 (1 seed, no interval) |")


def test_returns_are_written_in_the_long_form(runs: str, tmp_path: Path) -> None:
    assert main([runs, "--csv", str(tmp_path / "out.csv")]) == 0
    lines = [line for line in (tmp_path / "out.csv").read_text().splitlines() if not line.startswith("#")]
    assert sorted(lines) == sorted(RUNS.splitlines())


def test_kinds_of_run_take_the_names_that_a_paper_gives_them(
    runs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["--name", "cpu=CURL, a = b", "sac=SAC"]
    with pytest.raises(SystemExit):  # the last = counts
        main([runs, "--kind", "table", *names])
    assert "name must be of a kind of run, got cpu=CURL, a ; there are: cpu; sac" in capsys.readouterr().err
    names[1] = "cpu=CURL"
    assert main([runs, "--kind", "table", *names, "--csv", str(tmp_path / "out.csv")]) == 0
    assert [line.split(" | ")[1] for line in capsys.readouterr().out.splitlines()[3:]] == ["CURL", "SAC"]
    assert {line.split(",")[0] for line in (tmp_path / "out.csv").read_text().splitlines()[2:]} == {"CURL", "SAC"}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--name", "cpu"], "name must be KIND=NAME, got cpu"),
        (["--name", "cpu=sac"], "name must tell kinds of run apart, got sac for two"),
        (["--out", "x.jpeg"], "out must end in .png, .svg, .pdf, got x.jpeg"),
        (["--kind", "table", "--out", "x.png"], "out of a table must end in .md or .csv, got x.png"),
        (["--kind", "profiles", "--at", "0", "10"], "at must be one number of frames for --kind profiles, got 2"),
        (["--kind", "profiles", "--at", "7"], "at must be frames at which every run was evaluated, got 7; "),
        (["--published", "Curl"], "published must be methods out of CURL, "),
        (["missing"], "missing does not exist: name a run, a folder of runs or a CSV file of runs"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str],
    line: str,
    runs: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main([runs, *arguments])
    assert ended.value.code == 2
    (found,) = capsys.readouterr().err.splitlines()
    assert f"error: {line}" in found
