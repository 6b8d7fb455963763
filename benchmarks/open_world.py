"""A table of detectors' evaluations: python -m benchmarks.open_world RUN...

One row for each kind of run, phase and way to decide (with and without energy), with the mean over the seeds and its
95 % bootstrap interval. Runs of one kind differ in nothing but their seeds.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from curl_rl.report.runs import read_run
from curl_rl.report.statistics import bootstrap_interval, task_mean
from curl_rl.runs.command_line import command_parser, refusals
from curl_rl.runs.errors import UserError
from curl_rl.runs.files import read_file
from curl_rl.vision.detection.trainer import RESULTS

MEASURES = {
    "map": ("mAP", "{:.1%}"),
    "map_previous": ("of earlier tasks", "{:.1%}"),
    "map_current": ("of this task", "{:.1%}"),
    "unknown_recall": ("recall of unknowns", "{:.1%}"),
    "unknown_precision": ("their AP", "{:.1%}"),
    "open_set_error": ("A-OSE", "{:.0f}"),
    "wilderness_impact": ("WI", "{:.3f}"),
}
"""For each measure its heading and format."""
_LARGEST = 2**20
_WITHOUT = "without_energy/"


def table(directories: Sequence[Path]) -> str:
    """The table in Markdown.

    Raises:
        UserError: a run cannot be read, or has no evaluation yet.
    """
    found: dict[tuple[str, str, str], list[dict[str, float]]] = {}
    for directory in directories:
        path = directory / RESULTS
        if not path.is_file():
            raise UserError(f"{directory} has no {RESULTS}: name the directory of a run of train_detector.py")
        label = read_run(directory).label
        for phase, numbers in _read(path).items():
            for decided, prefix in (("energy", ""), ("classifier", _WITHOUT)):
                own = {name: numbers[prefix + name] for name in MEASURES if prefix + name in numbers}
                if own:
                    found.setdefault((label, phase, decided), []).append(own)
    heads = ["run", "seeds", "phase", "decided by", *(head for head, _ in MEASURES.values())]
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for (label, phase, decided), runs in found.items():
        cells = [label, f"{len(runs)}", phase, decided, *(_cell(runs, name) for name in MEASURES)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _read(path: Path) -> dict[str, dict[str, float]]:
    try:
        found: dict[str, dict[str, float]] = json.loads(read_file(path, _LARGEST))
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from None
    return found


def _cell(runs: Sequence[dict[str, float]], name: str) -> str:
    values = np.array([run[name] for run in runs if name in run])
    if not len(values):
        return "–"
    form, interval = MEASURES[name][1], bootstrap_interval(task_mean, [values])
    mean = form.format(values.mean())
    return mean if interval is None else f"{mean} [{', '.join(form.format(float(end)) for end in interval)}]"


def main() -> int:
    """Prints the table."""
    parser = command_parser(__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="directory of a run of train_detector.py")
    options = parser.parse_args()
    with refusals(parser):
        print(table(options.runs))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
