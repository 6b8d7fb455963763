"""Tables of returns, by hand."""

from __future__ import annotations

import csv
import io
import statistics

import pytest

from curl_rl.report.curves import Curve
from curl_rl.report.tables import as_csv, as_markdown, cell_at, efficiency_table, in_words

SEEDS = {1: {0: 0.0, 10: 600.0}, 2: {0: 3.0, 10: 500.0}, 3: {0: 6.0, 10: 700.0, 20: 900.0}}


def test_a_cell_has_mean_standard_deviation_interval_seeds_and_hours() -> None:
    curve = Curve("a", "x", SEEDS, seconds={1: {10: 3600.0}, 2: {10: 7200.0}})
    cell = cell_at(curve, 10)
    assert cell is not None
    assert (cell.seeds, cell.mean, cell.hours) == (3, 600, 1.5)
    assert cell.std == pytest.approx(statistics.stdev([600, 500, 700]))
    assert cell.interval == (500, 700)  # of 27 resamples one, 3.7 %, is three times the worst seed
    assert in_words(cell) == "600 ± 100 [500, 700] (3 seeds, 1.5 h)"


def test_one_seed_has_no_spread_and_says_so() -> None:
    cell = cell_at(Curve("a", "x", {1: {10: 4.25}}), 10)
    assert cell is not None
    assert (cell.std, cell.interval, cell.hours) == (None, None, None)
    assert in_words(cell) == "4.25 (1 seed, no interval)"


def test_the_table_of_efficiency() -> None:
    curves = [Curve("a", "x", SEEDS), Curve("b", "y", {1: {10: 1.0}})]
    header, first, second = efficiency_table(curves, [10, 20, 30], level=650)
    assert header == [
        "task",
        "kind of run",
        "10 frames",
        "20 frames",
        "30 frames",
        "mean of the curve",
        "frames to 650",
    ]
    assert first == [
        "a",
        "x",
        "600 ± 100 [500, 700] (3 seeds)",
        "900 (1 seed, no interval); 2 of 3 seeds not there",
        "– (evaluated to 20)",
        "302 (to 10)",  # (0 + 3 + 6 + 600 + 500 + 700) / 6 = 301.5, to even
        "– (1 of 3 seeds)",
    ]
    assert second[2:] == [
        "1.00 (1 seed, no interval)",
        *2 * ["– (evaluated to 10)"],
        "1.00 (to 10)",
        "– (0 of 1 seeds)",
    ]


@pytest.mark.parametrize(("level", "expected"), [(500, "10 (3 of 3 seeds)"), (600, "10 (2 of 3 seeds)")])
def test_the_median_seed_reaches_a_return(level: float, expected: str) -> None:
    assert efficiency_table([Curve("a", "x", SEEDS)], [10], level)[1][-1] == expected


def test_frames_between_two_evaluations_are_told_apart_from_those_after_the_last() -> None:
    assert efficiency_table([Curve("a", "x", {1: {0: 1.0, 10: 1.0}})], [5])[1][2] == "– (not evaluated there)"


def test_markdown_and_csv_hold_the_same_cells() -> None:
    table = [["a", "b"], ["x | y", '1, "2"']]
    assert as_markdown(table) == '| a | b |\n| --- | --- |\n| x \\| y | 1, "2" |\n'
    assert list(csv.reader(io.StringIO(as_csv(table)))) == table
