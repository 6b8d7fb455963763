"""Draw learning curves: evaluation return over environment frames, one panel per task, one line per kind of run.

    python scripts/plot_curves.py runs --out curves.png
    python scripts/plot_curves.py results/cpu/cartpole-swingup results/cpu/cheetah-run --out curves.png

Reads all runs (directories with config.yaml and metrics.jsonl) below the given directories, except pretraining runs,
which have no returns. Runs that differ only in their seeds are of one kind: the line is their mean, the band their
smallest to largest return. The dotted line is the random policy: the mean return of the episodes that ended within the
runs' random steps.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from curl_rl.report.curves import read_curves
from curl_rl.report.plots import draw_curves, headless_pyplot
from curl_rl.runs.command_line import command_parser, refusals


def main(argv: Sequence[str]) -> int:
    """Reads the command line and the runs, and draws."""
    parser = command_parser(__doc__)
    parser.add_argument("directories", type=Path, nargs="+", help="where to look for runs")
    parser.add_argument("--out", type=Path, default=Path("curves.png"), help="image file to write: .png, .svg, .pdf")
    arguments = parser.parse_args(argv)
    with refusals(parser):
        headless_pyplot()  # refuse a missing matplotlib before reading the runs
        curves = read_curves(arguments.directories)
        draw_curves(curves, arguments.out)
    print(f"{sum(len(curve.seeds) for curve in curves)} runs drawn: {arguments.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
