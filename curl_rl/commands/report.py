"""Write a report on runs: one HTML file with curves, a diagnosis in plain words, videos and embeddings.

    python scripts/report.py runs/cheetah-run/cpu/seed1
    python scripts/report.py runs/cartpole-swingup --out cartpole.html
    python scripts/report.py runs/vision-digits/simclr-digits/seed1 --protocols knn linear

The file holds everything and loads nothing from elsewhere, so it can be sent and opened anywhere. Runs may be of agents
or of pretraining, finished or in progress; they are not changed. What needs a checkpoint, the environment or the images
is left out where there is none, and the page says so. Needs matplotlib (the extra [plot]).

An agent plays --moments steps for its crops, the gradients of actor and critic, and the map of its embeddings.
docs/report.md explains what is shown, and every fault that the diagnosis knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from curl_rl.commands.environments import MakeEnvironment, make_configured
from curl_rl.report.run_report import Contents, report_page, run_directories
from curl_rl.report.style import headless_pyplot
from curl_rl.rl.workers import Environment
from curl_rl.runs.command_line import check_writable, command_parser, refusals
from curl_rl.runs.files import write_text


def main(argv: Sequence[str], make: MakeEnvironment[Environment], *unavailable: type[Exception]) -> int:
    """Reads the command line and the runs, and writes the page.

    Args:
        argv: the command's arguments.
        make: makes the runs' environments.
        unavailable: exceptions that ``make`` raises if this machine cannot run an environment; the page says so.
    """
    parser = command_parser(__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="runs, or folders of runs")
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="file to write [%(default)s]")
    parser.add_argument(
        "--moments",
        type=int,
        default=300,
        help="steps that an agent plays; 0: none, only what was logged [%(default)s]",
    )
    parser.add_argument("--videos", type=int, default=3, help="evaluation videos of each run [%(default)s]")
    parser.add_argument(
        "--protocols",
        nargs="*",
        choices=("knn", "linear"),
        default=["knn"],
        help="protocols that evaluate an encoder of images; none: leave them out [knn]",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<n> [%(default)s]")
    arguments = parser.parse_args(argv)
    for name in ("moments", "videos"):
        if getattr(arguments, name) < 0:
            parser.error(f"--{name} must be 0 or more, got {getattr(arguments, name)}")
    with refusals(parser, *unavailable):
        headless_pyplot()  # refuse a missing matplotlib before reading and playing
        directories = run_directories(arguments.runs)
        check_writable(arguments.out)
        contents = Contents(
            moments=arguments.moments,
            videos=arguments.videos,
            protocols=tuple(dict.fromkeys(arguments.protocols)),
            device=arguments.device,
        )
        write_text(
            arguments.out, report_page(directories, lambda name, config: make_configured(make, name, config), contents)
        )
        print(f"report: {arguments.out}")
    return 0
