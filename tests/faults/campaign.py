"""Injects faults of every kind in turn for some minutes, counts the outcomes, and writes them as a table.

    python tests/faults/campaign.py --minutes 15          # goes on where the last one ended
    python tests/faults/campaign.py --only "flipped" --number 17      # repeats one attempt, and shows a defect whole

The counts are kept in results/faults.csv, which is written after every attempt; results/faults.md shows them. Single
threaded. Exit code 1 if there has been a defect.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import os
import platform
import subprocess
import sys
import time
from collections import Counter
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import torch  # noqa: E402
from tqdm import tqdm  # noqa: E402

from curl_rl.runs.console import counted  # noqa: E402
from curl_rl.runs.files import write_durably  # noqa: E402
from helpers.faults import configurations, damage, environments, work  # noqa: E402
from helpers.faults.attempts import DEFECT, OUTCOMES, Kind, attempted  # noqa: E402

KINDS = [*damage.kinds(), *work.kinds(), *configurations.kinds(), *environments.kinds()]
Counts = Counter[tuple[str, str, str]]
"""By kind, outcome and commit."""


def main() -> int:
    """Reads the command line and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=15.0, help="how long [%(default)s]")
    parser.add_argument("--seed", type=int, default=0, help="of all attempts [%(default)s]")
    parser.add_argument("--only", default="", help="kinds whose names contain this")
    parser.add_argument("--number", type=int, help="repeats this attempt of each kind, and counts nothing")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "faults.csv", help="[results/faults.csv]")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    kinds = [kind for kind in KINDS if arguments.only in kind.name]
    if not kinds:
        parser.error(f"--only {arguments.only} must be part of a kind's name: {', '.join(kind.name for kind in KINDS)}")
    if arguments.number is not None:
        results = [(kind.name, *attempted(kind, arguments.number, arguments.seed)) for kind in kinds]
        print("\n".join(": ".join(result) for result in results))
        return int(any(outcome == DEFECT for _, outcome, _ in results))
    return campaign(kinds, arguments.seed, 60 * arguments.minutes, arguments.out)


def campaign(kinds: list[Kind], seed: int, seconds: float, out: Path) -> int:
    """Tries the kinds in turn, those with the fewest tries first; returns the exit code."""
    counts, commit, end = read(out), revision(), time.monotonic() + seconds
    begun = time.monotonic()
    with tqdm(total=round(seconds), unit="s", desc="faults", disable=None) as bar:
        while time.monotonic() < end:
            tries = Counter({kind.name: 0 for kind in kinds})
            for (name, _, _), count in counts.items():
                tries[name] += count
            kind = min(kinds, key=lambda kind: tries[kind.name])
            bar.set_postfix(tries=counts.total(), kind=kind.name, refresh=False)
            outcome, detail = attempted(kind, tries[kind.name], seed)
            if outcome == DEFECT:
                tqdm.write(f"{kind.name}, number {tries[kind.name]}: {detail}", file=sys.stderr)
            counts[kind.name, outcome, commit] += 1
            write(out, counts)
            bar.update(round(time.monotonic() - begun) - bar.n)
    defects = sum(count for (_, outcome, _), count in counts.items() if outcome == DEFECT)
    print(f"{counts.total()} tries, {counted(defects, 'defect')}: {out.with_suffix('.md')}")
    return int(defects > 0)


def read(path: Path) -> Counts:
    """The counts so far."""
    if not path.exists():
        return Counter()
    with open(path, newline="") as file:
        return Counter(
            {(row["kind"], row["outcome"], row["commit"]): int(row["tries"]) for row in csv.DictReader(file)}
        )


def write(path: Path, counts: Counts) -> None:
    """Writes the counts and the table."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["kind", "outcome", "commit", "tries"])
    rows.writerows([*key, count] for key, count in sorted(counts.items()))
    write_durably(path, [text.getvalue().encode()])
    write_durably(path.with_suffix(".md"), [table(counts).encode()])


def table(counts: Counts) -> str:
    """A row for each kind, a column for each outcome that has occurred."""
    names = [kind.name for kind in KINDS if any(name == kind.name for name, _, _ in counts)]
    by_outcome: Counter[tuple[str, str]] = Counter()
    for (name, outcome, _), count in counts.items():
        by_outcome[name, outcome] += count
    outcomes = [outcome for outcome in OUTCOMES if any(by_outcome[name, outcome] for name in names)]
    by_commit: Counter[str] = Counter()
    defects = {commit: 0 for _, _, commit in counts}
    for (_, outcome, commit), count in counts.items():
        by_commit[commit] += count
        defects[commit] += count * (outcome == DEFECT)
    commits = ", ".join(
        f"{commit} ({by_commit[commit]} tries, {counted(number, 'defect')})" for commit, number in defects.items()
    )
    lines = [
        "# Injected faults",
        "",
        f"{counts.total():,} tries, {counted(sum(defects.values()), 'defect')}. Each injects one fault, drawn at",
        "random, into a tiny run, file, recording, configuration or environment, in a process of its own.",
        "A defect is a traceback, a hang, a crash, a silent difference, code that is run from a file, or",
        "more than 512 MB of memory.",
        "",
        f"`make fault-test`; commits {commits}; {date.today().isoformat()},",
        f"{_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, PyTorch {torch.__version__}.",
        "",
        f"| fault | tries | {' | '.join(outcomes)} |",
        f"| --- | ---: |{' ---: |' * len(outcomes)}",
    ]
    for name in names:
        cells = [by_outcome[name, outcome] for outcome in outcomes]
        lines.append(f"| {name} | {sum(cells)} | {' | '.join(str(cell) if cell else '' for cell in cells)} |")
    total = [sum(by_outcome[name, outcome] for name in names) for outcome in outcomes]
    lines.append(f"| all | {counts.total()} | {' | '.join(map(str, total))} |")
    return "\n".join(lines) + "\n"


def _processor() -> str:
    """Its name, as far as the system tells."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return platform.machine()


def revision() -> str:
    """The commit, with a mark if files have changed since."""
    line = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    described = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    return described.stdout.strip() or "unknown"


if __name__ == "__main__":
    raise SystemExit(main())
