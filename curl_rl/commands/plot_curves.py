"""Draw learning curves: evaluation return over environment frames, one panel to a task, one line to a kind of run.

    python scripts/plot_curves.py runs --out curves.png
    python scripts/plot_curves.py results/cpu/cartpole-swingup results/cpu/cheetah-run --out curves.png

Every directory below the given ones that holds config.yaml and metrics.jsonl is a run; those of pretraining, which have
no returns, are passed over. Runs that differ in their seeds alone are of one kind: their mean is the line, their
smallest and largest return the band. The dotted line is the random policy: the mean return of the episodes that ended
within the runs' random steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from curl_rl.report.curves import read_curves
from curl_rl.report.plots import draw_curves, headless_pyplot
from curl_rl.runs.command_line import command_parser, refusals


def main(argv: Sequence[str]) -> int:
    """Read the command line, read the runs, draw."""
    parser = command_parser(__doc__)
    parser.add_argument("directories", type=Path, nargs="+", help="where to look for runs")
    parser.add_argument("--out", type=Path, default=Path("curves.png"), help="picture to write: .png, .svg, .pdf")
    arguments = parser.parse_args(argv)
    with refusals(parser):
        headless_pyplot()  # is missing before the runs are read, not after
        curves = read_curves(arguments.directories)
        draw_curves(curves, arguments.out)
    print(f"{sum(len(curve.seeds) for curve in curves)} runs drawn: {arguments.out}")
    return 0
