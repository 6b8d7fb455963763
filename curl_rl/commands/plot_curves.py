"""Draw learning curves of runs, and compare them.

    python scripts/plot_curves.py runs --out curves.png
    python scripts/plot_curves.py results/cpu/update.csv --center iqm --published CURL DrQ --out curves.svg
    python scripts/plot_curves.py runs --kind profiles --at 100000 --out profiles.png
    python scripts/plot_curves.py runs --kind improvement --at 100000 --out improvement.png
    python scripts/plot_curves.py runs --kind table --at 50000 100000 --reach 500
    python scripts/plot_curves.py runs --csv curves.csv
    python scripts/plot_curves.py runs --name "cpu=CURL" "cpu, agent.objective none=SAC" --out figure.pdf

Reads all runs (directories with config.yaml and metrics.jsonl, and CSV files of collected runs) at and below the given
paths, except pretraining runs, which have no returns. Runs that differ only in seed and budget are of one kind.

curves: evaluation return over environment frames, one panel per task, one line per kind of run: the mean over seeds, or
their interquartile mean, in its 95 % bootstrap interval; one seed has none. The dotted line is the random policy: the
mean return of the episodes that ended within the runs' random steps. Published results are points with their standard
deviation; a hollow point has another action repeat than the runs, and so does not compare.
profiles: the fraction of runs that return more than each value, at one number of frames.
improvement: for every two kinds of run, the probability that a run of the first returns more than one of the second.
table: returns at each number of frames, their mean over the curve, and the frames to reach a return, as Markdown.

docs/curves.md explains how to read them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from curl_rl.report.comparison import compare
from curl_rl.report.curves import RETURN, Curve, curves_of, no_curves, read_runs, renamed, samples
from curl_rl.report.long_csv import write_runs
from curl_rl.report.plots import draw_curves, draw_improvement, draw_profiles
from curl_rl.report.published import check_methods
from curl_rl.report.style import check_format, headless_pyplot
from curl_rl.report.tables import as_csv, as_markdown, efficiency_table
from curl_rl.runs.command_line import check_writable, command_parser, refusals
from curl_rl.runs.console import counted
from curl_rl.runs.errors import UserError
from curl_rl.runs.files import write_text


def main(argv: Sequence[str]) -> int:
    """Reads the command line and the runs, and draws."""
    parser = command_parser(__doc__)
    parser.add_argument("paths", type=Path, nargs="+", help="runs, folders of runs, CSV files of runs")
    parser.add_argument(
        "--kind",
        choices=("curves", "profiles", "improvement", "table"),
        default="curves",
        help="what to draw (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="file to write: .png, .svg or .pdf (default: curves.png, unless --csv is given); of a table, .md or .csv "
        "(default: printed)",
    )
    parser.add_argument(
        "--center", choices=("mean", "iqm"), default="mean", help="the curves' mean or interquartile mean over seeds"
    )
    parser.add_argument(
        "--published",
        nargs="*",
        default=["CURL"],
        metavar="METHOD",
        help="methods whose published results the curves show (default: CURL; no name: none); a wrong name lists all",
    )
    parser.add_argument(
        "--at",
        type=int,
        nargs="+",
        metavar="FRAMES",
        help="environment frames at which runs are compared: one number, or several for a table (default: the last at "
        "which all were evaluated)",
    )
    parser.add_argument("--reach", type=float, metavar="RETURN", help="a table's column: frames to reach this return")
    parser.add_argument(
        "--csv", type=Path, help="also write the evaluation returns to this CSV file: exp_name, env_name, seed, ..."
    )
    parser.add_argument(
        "--name",
        nargs="+",
        action="extend",
        default=[],
        metavar="KIND=NAME",
        help="what to call a kind of run, such as 'cpu, agent.objective none=SAC'; the last = counts",
    )
    arguments = parser.parse_args(argv)
    kind: str = arguments.kind
    out: Path | None = arguments.out or (None if kind == "table" or arguments.csv else Path(f"{kind}.png"))
    with refusals(parser):
        if kind != "table" and out is not None:
            check_format(out)
            headless_pyplot()  # refuse a missing matplotlib before reading the runs
        if kind == "table" and out is not None and out.suffix not in (".md", ".csv"):
            raise UserError(f"out of a table must end in .md or .csv, got {out}")
        for path in filter(None, (out, arguments.csv)):
            check_writable(path)
        if kind in ("profiles", "improvement") and len(arguments.at or [0]) != 1:
            raise UserError(f"at must be one number of frames for --kind {kind}, got {len(arguments.at)}")
        check_methods(arguments.published)
        names = _names(arguments.name)
        runs = renamed(samples(read_runs(arguments.paths)), names)
        curves = curves_of(runs)
        if not curves:
            raise UserError(no_curves(arguments.paths))
        if arguments.csv:
            write_runs(runs, arguments.csv, [("metrics", "evaluation returns only")], {RETURN})
            print(f"{counted(len(runs), 'run')} written: {arguments.csv}")
        if kind == "table":
            _write_table(curves, arguments.at, arguments.reach, out)
        elif out is not None:
            if kind == "curves":
                draw_curves(curves, out, center=arguments.center, published=arguments.published)
            else:
                comparison = compare(curves, arguments.at[0] if arguments.at else None)
                (draw_profiles if kind == "profiles" else draw_improvement)(comparison, out)
            print(f"{counted(len(runs), 'run')} drawn: {out}")
    return 0


def _names(texts: Sequence[str]) -> dict[str, str]:
    """Names by label, from texts ``label=name``."""
    parts = [text.rpartition("=") for text in texts]
    for text, (label, _, name) in zip(texts, parts, strict=True):
        if not (label and name):
            raise UserError(f"name must be KIND=NAME, got {text}")
    return {label: name for label, _, name in parts}


def _write_table(curves: list[Curve], budgets: list[int] | None, level: float | None, out: Path | None) -> None:
    if budgets is None:
        common = set.intersection(*(set(curve.common_frames()) for curve in curves))
        budgets = [max(common)] if common else [max(curve.frames()[-1] for curve in curves)]
    table = efficiency_table(curves, budgets, level)
    text = as_csv(table) if out is not None and out.suffix == ".csv" else as_markdown(table)
    if out is None:
        print(text, end="")
    else:
        write_text(out, text)
        print(f"{len(table) - 1} rows written: {out}")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
