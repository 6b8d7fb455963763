"""The table of published results."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest

from curl_rl.report.published import check_methods, methods, published_results
from curl_rl.rl.config import load_preset

ROOT = Path(__file__).resolve().parents[2]
TASKS = ("finger-spin", "cartpole-swingup", "reacher-easy", "cheetah-run", "walker-walk", "ball_in_cup-catch")


def test_curls_row_is_that_of_its_papers_table_1() -> None:
    found = {(row.task, row.frames): (row.mean, row.std) for row in published_results() if row.method == "CURL"}
    at_100k = [(767, 56), (582, 146), (538, 233), (299, 48), (403, 24), (769, 43)]
    at_500k = [(926, 45), (841, 45), (929, 44), (518, 28), (902, 43), (959, 27)]
    assert [found[task, 100_000] for task in TASKS] == at_100k
    assert [found[task, 500_000] for task in TASKS] == at_500k


def test_every_row_is_plausible_unique_and_has_a_source() -> None:
    rows = published_results()
    assert len(rows) == 304
    assert len({(row.method, row.task, row.frames) for row in rows}) == len(rows)
    for row in rows:
        assert row.task in TASKS
        assert 0 <= row.mean <= 1000
        assert row.std is None or 0 <= row.std < 500
        assert row.repeats in ("planet", "2", "")
        assert row.source


def test_a_method_has_one_protocol() -> None:
    for method in methods():
        assert len({row.repeats for row in published_results() if row.method == method}) == 1, method


@pytest.mark.parametrize("task", ["cartpole-swingup", "finger-spin", "cheetah-run"])
def test_planets_repeats_are_those_of_the_presets(task: str) -> None:
    (row,) = [row for row in published_results() if (row.method, row.task, row.frames) == ("CURL", task, 100_000)]
    assert row.action_repeat == load_preset("curl", task).environment.action_repeat


def test_other_repeats_are_known_as_such() -> None:
    repeats = {row.method: row.action_repeat for row in published_results() if row.task == "cartpole-swingup"}
    assert (repeats["DrQ"], repeats["DrQ-v2"], repeats["Dreamer"]) == (8, 2, None)


def test_an_unknown_method_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"^published must be methods out of CURL, .*, got DRQ; did you mean DrQ\?$"):
        check_methods(["CURL", "DRQ"])


def test_a_wheel_contains_the_table() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    names = [name.strip() for name in settings["options.package_data"]["curl_rl"].split(",")]
    assert "report/published.csv" in names
    assert all((ROOT / "curl_rl" / name).is_file() for name in names)
