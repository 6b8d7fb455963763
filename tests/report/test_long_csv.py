"""The CSV file of collected runs: nothing is lost in it, and other tools read it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from curl_rl.report.curves import curves_of, read_curves, read_runs, samples
from curl_rl.report.long_csv import is_runs_csv, notes_of, read_csv, write_runs
from curl_rl.report.runs import Run

ROWS: list[dict[str, Any]] = [
    {"frames": 0, "wall_time": 1795344025.3814523, "evaluation/return_mean": 2.5410452101231753},
    {"frames": 1000, "wall_time": 1795344026.0, "episode/return": 1e-7, "episode/length": 125},
    {"frames": 1000, "wall_time": 1795344027.5, "critic/loss": None, "speed/updates_per_second": 0.0},
    {"frames": 2000, "wall_time": 1795344028.5, "evaluation/return_mean": 9.0},
]
SETTINGS = {
    "kind": "agent",
    "env": "a-task",
    "frames": 2000,
    "environment": {"action_repeat": 4},
    "training": {"random_steps": 250},
}


def run(seed: int = 1, rows: list[dict[str, Any]] = ROWS, label: str = "cpu, x 1", **changes: Any) -> Run:
    settings = {**SETTINGS, **changes, "seed": seed, "run": f"runs/seed{seed}"}
    return Run("a-task", label, seed, rows, settings, Path(f"seed{seed}"))


def test_rows_come_back_exactly(tmp_path: Path) -> None:
    write_runs([run(1), run(2, ROWS[:1])], tmp_path / "x.csv")
    first, second = read_csv(tmp_path / "x.csv")
    assert [json.dumps(row) for row in first.rows] == [json.dumps(row) for row in ROWS]
    assert second.rows == ROWS[:1]
    assert (first.env, first.label, first.seed) == ("a-task", "cpu, x 1", 1)


def test_a_pretraining_run_counts_images(tmp_path: Path) -> None:
    rows = [{"images": 640, "wall_time": 1.0, "loss": 2.0}]
    images = Run("digits", "simclr, digits", 1, rows, {"kind": "pretraining", "method": "simclr"}, Path("x"))
    write_runs([images], tmp_path / "x.csv")
    (found,) = read_runs([tmp_path], kinds=("pretraining",))
    assert (found.rows, found.axis) == (rows, "images")
    assert read_runs([tmp_path]) == []


def test_settings_are_kept_once_for_each_kind_of_run(tmp_path: Path) -> None:
    write_runs([run(1), run(2), run(3, frames=500), run(4, label="other")], tmp_path / "x.csv")
    lines = [line for line in (tmp_path / "x.csv").read_text().splitlines() if line.startswith("# settings: ")]
    kinds = [json.loads(line.removeprefix("# settings: ")) for line in lines]
    assert [(kind["exp_name"], kind["seeds"], kind["config"]["frames"]) for kind in kinds] == [
        ("cpu, x 1", [1, 2], 2000),
        ("cpu, x 1", [3], 500),
        ("other", [4], 2000),
    ]
    assert kinds[0]["config"] == SETTINGS
    assert [found.settings["frames"] for found in read_csv(tmp_path / "x.csv")] == [2000, 2000, 500, 2000]


def test_the_curve_of_a_file_is_that_of_its_runs(tmp_path: Path) -> None:
    runs = [run(1), run(2, ROWS[:3])]
    write_runs(runs, tmp_path / "x.csv")
    (curve,) = curves_of(runs)
    assert read_curves([tmp_path]) == [curve]
    assert curve.seeds == {1: {0: 2.5410452101231753, 2000: 9.0}, 2: {0: 2.5410452101231753}}
    assert (curve.random_returns, curve.action_repeat, curve.unfinished) == ([1e-7, 1e-7], 4, {2})


def test_csv_readers_understand_it(tmp_path: Path) -> None:
    write_runs([run()], tmp_path / "x.csv", [("command", "train"), ("commit", "abc")], {"evaluation/return_mean"})
    lines = [line for line in (tmp_path / "x.csv").read_text().splitlines() if not line.startswith("#")]
    found = list(csv.DictReader(lines))
    assert list(found[0]) == ["exp_name", "env_name", "seed", "metric", "env_step", "value"]
    returns = [(row["env_step"], float(row["value"])) for row in found if row["metric"] == "evaluation/return_mean"]
    assert returns == [("0", 2.5410452101231753), ("2000", 9.0)]
    assert {row["metric"] for row in found} == {"evaluation/return_mean", "wall_time"}
    assert notes_of(tmp_path / "x.csv") == {"command": ["train"], "commit": ["abc"]}


def test_pandas_reads_it(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    write_runs([run()], tmp_path / "x.csv", [("command", "train")])
    table = pandas.read_csv(tmp_path / "x.csv", comment="#")
    assert len(table) == 10
    assert table.value.isna().sum() == 1


HEAD = "exp_name,env_name,seed,metric,env_step,value\n"


def test_another_programs_file_is_read(tmp_path: Path) -> None:
    """Without settings and times, in another order, and with steps as floats."""
    lines = [
        "b,t,2,evaluation/return_mean,0.0,5",
        "b,t,1,evaluation/return_mean,10,7",
        "b,t,2,evaluation/return_mean,10,",
    ]
    (tmp_path / "x.csv").write_text(HEAD + "".join(f"{line}\n" for line in lines))
    (curve,) = read_curves([tmp_path / "x.csv"])
    assert curve.seeds == {1: {10: 7}, 2: {0: 5}}
    assert (curve.action_repeat, curve.unfinished, curve.seconds) == (None, set(), {})


def test_an_incomplete_last_line_is_left_out_with_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = "b,t,1,evaluation/return_mean,0,5\nb,t,1,evaluation/return_mean,10,1"  # was it 1 or 100?
    (tmp_path / "x.csv").write_text(HEAD + lines)
    (curve,) = read_curves([tmp_path])
    assert curve.seeds == {1: {0: 5}}
    assert capsys.readouterr().err == f"warning: the last line of {tmp_path}/x.csv is incomplete, and left out\n"


@pytest.mark.parametrize(
    "line",
    [
        "b,t,1,m,0",
        "b,t,one,m,0,1",
        "b,t,1,m,zero,1",
        "b,t,1,m,0,high",
        "b,t,1,m,inf,1",
        "# settings: {",
        "# settings: 3",
    ],
)
def test_a_wrong_line_is_named(line: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(f"# command: x\n{HEAD}{line}\n")
    with pytest.raises(ValueError, match=r"x.csv, line 3: must be exp_name,env_name,seed,metric,env_step,value; "):
        read_csv(tmp_path / "x.csv")


def test_another_table_is_refused_when_named_and_ignored_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    assert not is_runs_csv(tmp_path / "other.csv")
    with pytest.raises(ValueError, match=r"other.csv must begin with the line exp_name,env_name"):
        read_csv(tmp_path / "other.csv")
    assert read_runs([tmp_path]) == []


def test_kinds_of_two_files_are_kept_apart(tmp_path: Path) -> None:
    """Each file is an experiment, with the code of its time: its seeds are not mixed with another's."""
    write_runs([run(1), run(2)], tmp_path / "old.csv")
    write_runs([run(1)], tmp_path / "new.csv")
    runs = samples(read_runs([tmp_path]))
    write_runs(runs, tmp_path / "both.csv")  # and can be written together
    found = {curve.label: list(curve.seeds) for curve in read_curves([tmp_path / "both.csv"])}
    assert found == {"cpu, x 1 (new)": [1], "cpu, x 1 (old)": [1, 2]}


def test_files_of_one_name_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write_runs([run(1)], tmp_path / folder / "x.csv")
    labels = [curve.label for curve in read_curves([tmp_path])]
    assert labels == [f"cpu, x 1 ({tmp_path}/{folder}/x.csv)" for folder in ("one", "two")]


def test_two_runs_of_one_kind_and_seed_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="are runs of one kind and seed: name one of them"):
        write_runs([run(1), run(1)], tmp_path / "x.csv")
    assert not (tmp_path / "x.csv").exists()


def test_a_note_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="command must be one line, got"):
        write_runs([run(1)], tmp_path / "x.csv", [("command", "a\nb,t,1,m,0,1")])
