"""The table of CURL's paper (arXiv 2004.04136, Table 1) for runs of this package, next to published rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from curl_rl.report.curves import Curve
from curl_rl.report.published import Published, published_results, repeat_on
from curl_rl.report.tables import Cell, Table, cell_at, in_words, missing_in_words

TASKS = ("finger-spin", "cartpole-swingup", "reacher-easy", "cheetah-run", "walker-walk", "ball_in_cup-catch")
BUDGETS = (100_000, 500_000)
"""Environment frames."""
PAPER = ("CURL", "PlaNet", "Dreamer", "SAC+AE", "SLAC", "State SAC")
"""The methods of the paper's table. Its pixel SAC is left out: both of its columns are the same numbers."""

LEGEND = (
    "Mean return ± standard deviation over seeds; in brackets the 95 % bootstrap interval of the mean, too narrow with "
    "fewer than 5 seeds; in parentheses the seeds, and the mean time of a run until then."
)
"""How to read a cell of the tables."""

_REPEATS = {"planet": "PlaNet's", "2": "2", "": "not stated"}
_COLUMNS = (
    *("method", "task", "environment_frames", "return_mean", "return_std", "interval_low", "interval_high"),
    *("seeds", "hours", "action_repeat", "source"),
)


def benchmark_tables(curves: Sequence[Curve], methods: Collection[str] = PAPER) -> dict[int, Table]:
    """For each budget, a row per kind of run and published method and a column per task, in words.

    Published methods with the action repeats of CURL's paper come first, those with other repeats last: they take other
    numbers of decisions in the same frames.
    """
    tables = {}
    for budget in BUDGETS:
        table = [["", "action repeats", *TASKS]]
        kinds = _kinds(curves)
        for label, by_task in kinds.items():
            cells = [
                _in_words(by_task[task], budget) if task in by_task else _elsewhere(label, task, kinds)
                for task in TASKS
            ]
            table.append([label, _REPEATS[_protocol(by_task.values())], *cells])
        for repeats, words in _REPEATS.items():
            for method, rows in _published(methods, budget, repeats).items():
                table.append([f"{method} (published)", words, *(_published_in_words(rows.get(task)) for task in TASKS)])
        tables[budget] = table
    return tables


def benchmark_numbers(curves: Sequence[Curve], methods: Collection[str] = PAPER) -> Table:
    """The same figures, one to a row, with an empty field for what is not known."""
    table = [list(_COLUMNS)]
    for label, by_task in _kinds(curves).items():
        for task, curve in by_task.items():
            for budget in BUDGETS:
                if (cell := cell_at(curve, budget)) is not None:
                    table.append([label, task, f"{budget}", *_numbers(cell), f"{curve.action_repeat or ''}", "runs"])
    for row in published_results():
        if row.method in methods and row.frames in BUDGETS:
            std = "" if row.std is None else f"{row.std:g}"
            repeat = "" if row.action_repeat is None else f"{row.action_repeat}"
            own = [row.method, row.task, f"{row.frames}", f"{row.mean:g}", std]
            table.append([*own, "", "", row.seeds, "", repeat, row.source])
    return table


def _kinds(curves: Sequence[Curve]) -> dict[str, dict[str, Curve]]:
    """The curves on the tasks of the table, by label and task."""
    found: dict[str, dict[str, Curve]] = {}
    for curve in curves:
        if curve.env in TASKS:
            found.setdefault(curve.label, {})[curve.env] = curve
    return found


def _protocol(curves: Collection[Curve]) -> str:
    """The action repeats of runs, in the words of the table of published results."""
    for repeats in ("planet", "2"):
        if all(curve.action_repeat == repeat_on(curve.env, repeats) for curve in curves):
            return repeats
    return ""


def _published(methods: Collection[str], budget: int, repeats: str) -> dict[str, dict[str, Published]]:
    found: dict[str, dict[str, Published]] = {}
    for row in published_results():
        if row.method in methods and row.frames == budget and row.repeats == repeats:
            found.setdefault(row.method, {})[row.task] = row
    return found


def _in_words(curve: Curve, budget: int) -> str:
    cell = cell_at(curve, budget)
    return missing_in_words(curve, budget) if cell is None else in_words(cell)


def _elsewhere(label: str, task: str, kinds: Mapping[str, Mapping[str, Curve]]) -> str:
    """For a task that a row lacks: the rows of the same kind of run by the files that hold it, if there are any."""
    rows = [other for other, by_task in kinds.items() if other.startswith(f"{label} (") and task in by_task]
    return f"see {' and '.join(rows)}" if rows else "no run"


def _published_in_words(row: Published | None) -> str:
    if row is None:
        return "not published"
    spread = "" if row.std is None else f" ± {row.std:g}"
    return f"{row.mean:g}{spread}" + (f" ({row.seeds} seeds)" if row.seeds else "")


def _numbers(cell: Cell) -> list[str]:
    low, high = cell.interval or (None, None)
    values = (cell.mean, cell.std, low, high, cell.seeds, cell.hours)
    return ["" if value is None else f"{value:.6g}" for value in values]
