#!/usr/bin/env python
"""Draw learning curves: evaluation return over environment frames, one panel to a task, one line to a kind of run.

    python scripts/plot_curves.py runs --out curves.png
    python scripts/plot_curves.py results/cpu/cartpole-swingup results/cpu/cheetah-run --out curves.png

Every directory below the given ones that holds config.yaml and metrics.jsonl is a run; those of pretraining, which have
no returns, are passed over. Runs that differ in their seeds
alone are of one kind: their mean is the line, their smallest and largest return the band. The dotted line is the random
policy: the mean return of the episodes that ended within the runs' random steps.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from curl_rl.report.curves import Curve, read_curves
from curl_rl.runs.command_line import command_parser, refusals


def main() -> int:
    """Read the command line, read the runs, draw."""
    parser = command_parser(__doc__)
    parser.add_argument("directories", type=Path, nargs="+", help="where to look for runs")
    parser.add_argument("--out", type=Path, default=Path("curves.png"), help="picture to write: .png, .svg, .pdf")
    arguments = parser.parse_args()
    try:
        import matplotlib
    except ImportError:
        parser.error("matplotlib is missing: pip install matplotlib, or install this package with the extra [plot]")
    matplotlib.use("Agg")
    with refusals(parser):
        curves = read_curves(arguments.directories)
        draw(curves, arguments.out)
    print(f"{sum(len(curve.seeds) for curve in curves)} runs drawn: {arguments.out}")
    return 0


def draw(curves: list[Curve], out: Path) -> None:
    """One panel to a task."""
    from matplotlib import pyplot

    panels: dict[str, list[Curve]] = defaultdict(list)
    for curve in curves:
        panels[curve.env].append(curve)
    figure, axes = pyplot.subplots(1, len(panels), figsize=(5 * len(panels), 3.6), squeeze=False)
    for axis, (env, of_env) in zip(axes[0], panels.items(), strict=True):
        for curve in of_env:
            frames = curve.frames()
            returns = [curve.returns_at(at) for at in frames]
            seeds = f"{len(curve.seeds)} seed{'s' if len(curve.seeds) > 1 else ''}"
            (line,) = axis.plot(frames, [fmean(values) for values in returns], label=f"{curve.label} ({seeds})")
            axis.fill_between(frames, [*map(min, returns)], [*map(max, returns)], color=line.get_color(), alpha=0.2)
        random = [value for curve in of_env for value in curve.random_returns]
        if random:
            axis.axhline(sum(random) / len(random), color="grey", linestyle=":", label="random policy")
        axis.set(title=env, xlabel="environment frames", ylabel="return of the deterministic policy")
        axis.legend(fontsize="small")
        axis.grid(alpha=0.3)
    figure.tight_layout()
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=120)


if __name__ == "__main__":
    raise SystemExit(main())
