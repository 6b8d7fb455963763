"""The tables of returns against the runs that are stored next to them."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import pytest

from curl_rl.runs.logger import read_metrics

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results" / "cpu"
TEXT = (ROOT / "results" / "README.md").read_text()
README = (ROOT / "README.md").read_text()
TENTHS = range(10_000, 100_001, 10_000)


def returns(run: Path) -> dict[int, float]:
    rows = read_metrics(run / "metrics.jsonl")
    return {row["frames"]: row["evaluation/return_mean"] for row in rows if "evaluation/return_mean" in row}


def runs(folder: str) -> dict[int, dict[int, float]]:
    """Returns by frames, for each seed."""
    found = {int(run.name.removeprefix("seed")): returns(run) for run in (RESULTS / folder).glob("seed*")}
    assert found, folder
    return dict(sorted(found.items()))


@pytest.mark.parametrize(
    ("folder", "first"),
    [
        ("cheetah-run/cpu", "seed"),
        ("cartpole-swingup/cpu", "with the contrastive loss, seed"),
        ("cartpole-swingup/cpu-none", "without, same crops, seed"),
        ("update/cartpole-swingup/cpu", "exact, bfloat16, seed"),
        ("update/cartpole-swingup/cpu-float32", "exact, float32, seed"),
        ("update/cartpole-swingup/cpu-joint", "joint, bfloat16, seed"),
    ],
)
def test_a_row_of_returns_is_what_the_run_wrote(folder: str, first: str) -> None:
    for number, (seed, found) in enumerate(runs(folder).items()):
        name = f"{first} {seed}" if number == 0 else f"seed {seed}"
        row = " | ".join([name, *(f"{found[at]:.0f}" for at in TENTHS)])
        assert f"| {row} |" in TEXT, f"{folder}, seed {seed}"


@pytest.mark.parametrize(
    ("folder", "name"),
    [("cpu", "exact, bfloat16"), ("cpu-float32", "exact, float32"), ("cpu-joint", "joint, bfloat16")],
)
def test_the_means_over_seeds_are_those_of_the_runs(folder: str, name: str) -> None:
    seeds = runs(f"update/cartpole-swingup/{folder}").values()
    last = [found[100_000] for found in seeds]
    end = f"{fmean(last):.0f} ({min(last):.0f} to {max(last):.0f})"
    three = fmean(found[at] for found in seeds for at in TENTHS[-3:])
    curve = fmean(found[at] for found in seeds for at in TENTHS)
    assert f"| {name}, {len(last)} seeds | {end} | {three:.0f} | {curve:.0f} |" in TEXT
    assert end in README


@pytest.mark.parametrize("preset", ["curl", "official", "sac", "cpu", "cpu-none"])
def test_the_rows_of_tiny_reach_are_means_of_five_seeds(preset: str) -> None:
    seeds = runs(f"tiny-reach/{preset}").values()
    assert len(seeds) == 5
    means = [f"{fmean(found[at] for found in seeds):.1f}" for at in (1000, 2000, 3000)]
    worst = f"{min(found[3000] for found in seeds):.1f}"
    name = "`cpu`, objective none" if preset == "cpu-none" else f"`{preset}`"
    assert f"| {name} | {' | '.join([*means, worst])} |" in TEXT


@pytest.mark.parametrize(("folder", "name"), [("cpu", "exact, bfloat16"), ("cpu-float32", "exact, float32")])
def test_the_precisions_on_tiny_reach_are_means_of_all_seeds(folder: str, name: str) -> None:
    seeds = runs(f"update/tiny-reach/{folder}").values()
    cells = []
    for at in (1000, 2000, 3000):
        values = [found[at] for found in seeds]
        cells.append(f"{fmean(values):.1f} ({min(values):.1f} to {max(values):.1f})")
    assert f"| {name}, {len(seeds)} seeds | {' | '.join(cells)} |" in TEXT
