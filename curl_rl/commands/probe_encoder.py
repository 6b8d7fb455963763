"""Probe encoders for the physical state: R² of a linear regression from features to the recorded state.

    python scripts/probe_encoder.py frames/cartpole runs/cartpole-swingup/cpu/seed1 --untrained --raw_pixels
    python scripts/probe_encoder.py frames/cartpole RUN OTHER_RUN encoder.safetensors --json probe.json --out probe.png

The folder is made by scripts/record_frames.py; encoders are runs, of agents or of pretraining, or encoder files. Each
encoder gets as many stacked frames as in training, center-cropped if they are larger. Whole episodes are held out:
every fifth is used only for scoring. 1: a quantity is predicted exactly; 0: not at all; a quantity that does not vary
is reported as constant and left out of the mean.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from curl_rl.recordings.probe import Row, Split, probe_encoders, report, table
from curl_rl.recordings.store import RecordedFrames
from curl_rl.report.style import headless_pyplot
from curl_rl.runs.command_line import check_writable, command_parser, refusals
from curl_rl.runs.compute import resolve_device
from curl_rl.runs.console import counted, printable
from curl_rl.runs.files import write_json

LOWEST = -0.25  # lower end of the axis: scores far below that of predicting the mean are not informative


def main(argv: Sequence[str]) -> int:
    """Reads the command line, probes, and prints the table."""
    parser = command_parser(__doc__)
    parser.add_argument("folder", type=Path, help="recorded frames")
    parser.add_argument("encoders", type=Path, nargs="+", metavar="ENCODER", help="run directories or encoder files")
    parser.add_argument("--untrained", action="store_true", help="add a row: the same architecture with random weights")
    parser.add_argument("--untrained_seeds", type=int, metavar="N", help="random encoders averaged in that row [3]")
    parser.add_argument("--raw_pixels", action="store_true", help="add a row: the pixels, averaged down to 12×12")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<n> [%(default)s]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every score here as well")
    parser.add_argument("--out", type=Path, metavar="PICTURE", help="draw bars here: .png, .svg, .pdf")
    arguments = parser.parse_args(argv)
    seeds = 3 if arguments.untrained_seeds is None else arguments.untrained_seeds
    if seeds < 1:
        parser.error(f"--untrained_seeds must be at least 1, got {seeds}")
    if arguments.untrained_seeds is not None and not arguments.untrained:
        parser.error(f"--untrained_seeds {seeds} applies to the row that --untrained adds: add it, or leave this out")
    with refusals(parser):
        if arguments.out:
            headless_pyplot()  # refuse a missing matplotlib before probing
        frames = RecordedFrames(arguments.folder)
        # Encoding takes a while: refuse unwritable outputs first.
        for path in filter(None, (arguments.json, arguments.out)):
            check_writable(path)
        rows = probe_encoders(
            frames,
            arguments.encoders,
            untrained=seeds if arguments.untrained else 0,
            raw_pixels=arguments.raw_pixels,
            device=resolve_device(arguments.device),
        )
        parts = Split.of(frames).counts(frames.episodes)
        sizes = ", ".join(f"{name} {part['frames']:,} of {part['episodes']}" for name, part in parts.items())
        episodes = counted(int(frames.episodes[-1]) + 1, "episode")
        print(f"{arguments.folder}: {counted(len(frames), 'frame')} of {episodes} ({sizes})")
        print("\n".join(map(printable, table(rows).splitlines())))
        if arguments.json:
            write_json(arguments.json, report(rows, frames))
        if arguments.out:
            draw(rows, arguments.out)
            print(f"picture: {arguments.out}")
    return 0


def draw(rows: list[Row], out: Path) -> None:
    """Draws a group of bars per varying quantity, and one for their mean, with a bar per row."""
    pyplot = headless_pyplot()
    groups = [quantity for quantity, values in rows[0].r2.items() if values is not None]
    figure, axis = pyplot.subplots(figsize=(max(5.0, 1.2 * (len(groups) + 1)), 3.6 + 0.2 * len(rows)))
    width = 0.8 / len(rows)
    for number, row in enumerate(rows):
        each = [row.means, *(row.r2[quantity] or () for quantity in groups)]
        means = [sum(values) / len(values) for values in each]
        ends = [[mean - min(values) for mean, values in zip(means, each, strict=True)]]
        ends += [[max(values) - mean for mean, values in zip(means, each, strict=True)]]
        places = [place + (number - (len(rows) - 1) / 2) * width for place in range(len(each))]
        axis.bar(places, means, width, label=row.name, yerr=ends if len(row.means) > 1 else None, capsize=2)
    axis.set_xticks(range(len(groups) + 1), ["mean", *groups], rotation=30, ha="right", fontsize="small")
    axis.set(ylabel="R² on held-out episodes", ylim=(max(axis.get_ylim()[0], LOWEST), 1.02))
    axis.axhline(0, color="black", linewidth=0.8)
    axis.grid(axis="y", alpha=0.3)
    axis.legend(fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0))
    figure.tight_layout()
    figure.savefig(out, dpi=120)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
