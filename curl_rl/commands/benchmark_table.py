"""Write the table of CURL's paper (Table 1) for runs of this package, next to the published rows.

    python scripts/benchmark_table.py
    python scripts/benchmark_table.py runs --out benchmark.md
    python scripts/benchmark_table.py runs --published CURL DrQ DrQ-v2 --out benchmark.csv

Six tasks of the DeepMind Control suite at 100,000 and 500,000 environment frames. A cell holds the mean over seeds of
the evaluation at these frames, its standard deviation over seeds, its 95 % bootstrap interval, the number of seeds and
the mean time of a run until then. Methods with other action repeats come last: their figures are of another experiment.

Reads all runs (directories with config.yaml and metrics.jsonl, and CSV files of collected runs) at and below the given
paths, and nothing else. A kind of run that several CSV files hold has a row for each.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from curl_rl.report.benchmark import LEGEND, PAPER, TASKS, benchmark_numbers, benchmark_tables
from curl_rl.report.curves import read_curves
from curl_rl.report.published import check_methods
from curl_rl.report.runs import named
from curl_rl.report.tables import as_csv, as_markdown
from curl_rl.runs.command_line import check_writable, command_parser, refusals
from curl_rl.runs.errors import UserError
from curl_rl.runs.files import write_text


def main(argv: Sequence[str]) -> int:
    """Reads the command line and the runs, and writes the table."""
    parser = command_parser(__doc__)
    parser.add_argument(
        "paths",
        type=Path,
        nargs="*",
        default=[Path("results")],
        help="runs, folders of runs, CSV files of runs (default: results, the package's own in a clone)",
    )
    parser.add_argument("--out", type=Path, help="file to write: .md or .csv (default: Markdown, printed)")
    parser.add_argument(
        "--published",
        nargs="*",
        default=list(PAPER),
        metavar="METHOD",
        help="methods whose published results are rows (default: those of the paper); a wrong name lists all",
    )
    arguments = parser.parse_args(argv)
    out: Path | None = arguments.out
    with refusals(parser):
        if out is not None:
            if out.suffix not in (".md", ".csv"):
                raise UserError(f"out must end in .md or .csv, got {out}")
            check_writable(out)
        check_methods(arguments.published)
        curves = read_curves(arguments.paths)
        if not any(curve.env in TASKS for curve in curves):
            raise UserError(f"no run of {', '.join(TASKS)} below {named(arguments.paths)}")
        if out is not None and out.suffix == ".csv":
            text = as_csv(benchmark_numbers(curves, arguments.published))
        else:
            tables = benchmark_tables(curves, arguments.published)
            parts = [f"**{budget:,} environment frames**\n\n{as_markdown(table)}" for budget, table in tables.items()]
            text = "\n".join([*parts, f"{LEGEND}\n"])
        if out is None:
            print(text, end="")
        else:
            write_text(out, text)
            print(f"table written: {out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
