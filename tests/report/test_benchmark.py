"""The table of CURL's paper, by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from curl_rl.commands.benchmark_table import main
from curl_rl.report.benchmark import TASKS, benchmark_numbers, benchmark_tables
from curl_rl.report.curves import Curve

CURVES = [
    Curve("cartpole-swingup", "curl", {1: {100_000: 500.0}, 2: {100_000: 600.0}}, action_repeat=8),
    Curve("finger-spin", "curl", {1: {50_000: 1.0}}, action_repeat=2),
    Curve("cheetah-run", "every action twice", {1: {0: 1.0, 500_000: 400.0}}, action_repeat=2),
    Curve("tiny-reach", "curl", {1: {100_000: 20.0}}, action_repeat=1),
]


def test_rows_of_this_package_come_first_and_empty_cells_say_why() -> None:
    tables = benchmark_tables(CURVES, ["CURL", "DrQ-v2", "SLAC"])
    assert list(tables) == [100_000, 500_000]
    header, *rows = tables[100_000]
    assert header == ["", "action repeats", *TASKS]
    assert rows[0] == [
        "curl",
        "PlaNet's",
        "– (evaluated to 50,000)",
        "550 ± 70.7 [500, 600] (2 seeds)",
        *4 * ["no run"],
    ]
    assert rows[1] == ["every action twice", "2", *3 * ["no run"], "– (not evaluated there)", *2 * ["no run"]]
    published = ["767 ± 56", "582 ± 146", "538 ± 233", "299 ± 48", "403 ± 24", "769 ± 43"]
    assert rows[2] == ["CURL (published)", "PlaNet's", *(f"{cell} (10 seeds)" for cell in published)]
    assert [row[:2] for row in rows[3:]] == [["DrQ-v2 (published)", "2"], ["SLAC (published)", "not stated"]]
    assert rows[4][3] == "not published"


def test_a_row_names_the_rows_that_have_its_other_tasks() -> None:
    """A kind of run that two files hold for one task has a row for each, and one for its other tasks."""
    curves = [
        Curve("cartpole-swingup", "cpu (first)", {1: {100_000: 1.0}}),
        Curve("cartpole-swingup", "cpu (second)", {1: {100_000: 2.0}}),
        Curve("cheetah-run", "cpu", {1: {100_000: 3.0}}),
        Curve("cheetah-run", "cpu, agent.objective none", {1: {100_000: 4.0}}),
    ]
    rows = {row[0]: row[3] for row in benchmark_tables(curves, [])[100_000]}
    assert rows["cpu"] == "see cpu (first) and cpu (second)"
    assert rows["cpu, agent.objective none"] == "no run"


def test_numbers_have_a_row_each() -> None:
    header, *rows = benchmark_numbers(CURVES, ["CURL"])
    found = [dict(zip(header, row, strict=True)) for row in rows]
    assert len(found) == 2 + 12
    assert found[0] == {
        "method": "curl",
        "task": "cartpole-swingup",
        "environment_frames": "100000",
        "return_mean": "550",
        "return_std": "70.7107",
        "interval_low": "500",
        "interval_high": "600",
        "seeds": "2",
        "hours": "",
        "action_repeat": "8",
        "source": "runs",
    }
    assert found[1]["return_std"] == ""
    assert found[-1]["source"].startswith("CURL paper")


RUNS = "exp_name,env_name,seed,metric,env_step,value\ncpu,{},1,evaluation/return_mean,100000,5\n"


def test_the_command_prints_markdown_and_writes_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs.csv").write_text(RUNS.format("walker-walk"))
    assert main([str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("**100,000 environment frames**\n\n|  | action repeats | finger-spin |")
    assert "| cpu | not stated | no run | no run | no run | no run | 5.00 (1 seed, no interval) | no run |\n" in printed
    assert printed.endswith("and the mean time of a run until then.\n")
    for name in ("x.md", "x.csv"):
        assert main([str(tmp_path / "runs.csv"), "--out", str(tmp_path / "new" / name)]) == 0
    assert (tmp_path / "new" / "x.md").read_text() == printed
    assert (tmp_path / "new" / "x.csv").read_text().startswith("method,task,environment_frames,")


@pytest.mark.parametrize(
    ("task", "more", "line"),
    [
        ("tiny-reach", [], "no run of finger-spin, cartpole-swingup, "),
        ("walker-walk", ["--out", "x.txt"], "out must end in .md or .csv, got x.txt"),
        ("walker-walk", ["--published", "curl"], "published must be methods out of CURL, "),
    ],
)
def test_a_mistake_is_one_line(
    task: str, more: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs.csv").write_text(RUNS.format(task))
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / "runs.csv"), *more])
    assert ended.value.code == 2
    (found,) = capsys.readouterr().err.splitlines()
    assert f"error: {line}" in found
