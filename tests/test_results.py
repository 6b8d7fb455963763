"""The tables of results against the runs that are stored next to them."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from statistics import fmean

import pytest

from curl_rl.report.curves import RETURN
from curl_rl.report.long_csv import notes_of, read_csv
from curl_rl.report.runs import Run

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results" / "cpu"
TEXT = (ROOT / "results" / "README.md").read_text()
README = (ROOT / "README.md").read_text()
TENTHS = range(10_000, 100_001, 10_000)


@lru_cache
def stored(file: str) -> list[Run]:
    return read_csv(RESULTS / file)


def runs(file: str, label: str, env: str) -> dict[int, dict[int, float]]:
    """Returns by frames, for each seed."""
    found = {
        run.seed: {row["frames"]: row[RETURN] for row in run.rows if RETURN in row}
        for run in stored(file)
        if (run.label, run.env) == (label, env)
    }
    assert found, label
    return dict(sorted(found.items()))


@pytest.mark.parametrize(
    ("file", "label", "env", "first"),
    [
        ("cheetah-run.csv", "cpu", "cheetah-run", "seed"),
        ("cartpole-swingup.csv", "cpu", "cartpole-swingup", "with the contrastive loss, seed"),
        ("cartpole-swingup.csv", "cpu, agent.objective none", "cartpole-swingup", "without, same crops, seed"),
        ("cartpole-swingup-methods.csv", "cpu, agent.objective swav", "cartpole-swingup", "SwAV, seed"),
        ("cartpole-swingup-methods.csv", "cpu, agent.objective nnclr", "cartpole-swingup", "NNCLR, seed"),
        ("cartpole-swingup-methods.csv", "cpu, agent.objective none", "cartpole-swingup", "none, seed"),
        ("update.csv", "cpu", "cartpole-swingup", "exact, bfloat16, seed"),
        ("update.csv", "cpu, agent.precision float32", "cartpole-swingup", "exact, float32, seed"),
        ("update.csv", "cpu, agent.update_rule joint", "cartpole-swingup", "joint, bfloat16, seed"),
    ],
)
def test_a_row_of_returns_is_what_the_run_wrote(file: str, label: str, env: str, first: str) -> None:
    for number, (seed, found) in enumerate(runs(file, label, env).items()):
        name = f"{first} {seed}" if number == 0 else f"seed {seed}"
        row = " | ".join([name, *(f"{found[at]:.0f}" for at in TENTHS)])
        assert f"| {row} |" in TEXT, f"{file}, {label}, seed {seed}"


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("cpu", "exact, bfloat16"),
        ("cpu, agent.precision float32", "exact, float32"),
        ("cpu, agent.update_rule joint", "joint, bfloat16"),
    ],
)
def test_the_means_over_seeds_are_those_of_the_runs(label: str, name: str) -> None:
    seeds = runs("update.csv", label, "cartpole-swingup").values()
    last = [found[100_000] for found in seeds]
    end = f"{fmean(last):.0f} ({min(last):.0f} to {max(last):.0f})"
    three = fmean(found[at] for found in seeds for at in TENTHS[-3:])
    curve = fmean(found[at] for found in seeds for at in TENTHS)
    assert f"| {name}, {len(last)} seeds | {end} | {three:.0f} | {curve:.0f} |" in TEXT
    assert end in README


def test_the_mean_of_curl_beside_other_methods_on_cartpole() -> None:
    seeds = runs("update.csv", "cpu, agent.precision float32", "cartpole-swingup").values()
    row = " | ".join(f"{fmean(found[at] for found in seeds):.0f}" for at in TENTHS)
    assert f"| CURL, ten seeds (float32, `cpu/update.csv`), mean | {row} |" in TEXT


@pytest.mark.parametrize("label", ["curl", "official", "sac", "cpu", "cpu, agent.objective none"])
def test_the_rows_of_tiny_reach_are_means_of_five_seeds(label: str) -> None:
    seeds = runs("tiny-reach.csv", label, "tiny-reach").values()
    assert len(seeds) == 5
    means = [f"{fmean(found[at] for found in seeds):.1f}" for at in (1000, 2000, 3000)]
    worst = f"{min(found[3000] for found in seeds):.1f}"
    name = "`cpu`, objective none" if "none" in label else f"`{label}`"
    assert f"| {name} | {' | '.join([*means, worst])} |" in TEXT


@pytest.mark.parametrize("method", ["n_pair", "triplet", "nnclr", "swav"])
def test_the_rows_of_other_methods_on_tiny_reach_are_means_of_five_seeds(method: str) -> None:
    seeds = runs("tiny-reach-methods.csv", f"cpu, agent.objective {method}", "tiny-reach").values()
    assert len(seeds) == 5
    means = [f"{fmean(found[at] for found in seeds):.1f}" for at in (1000, 2000, 3000)]
    worst = f"{min(found[3000] for found in seeds):.1f}"
    name = "`swav`, Proto-RL's form" if method == "swav" else f"`{method}`"
    assert f"| {name} | {' | '.join([*means, worst])} |" in TEXT


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("cpu", "exact, bfloat16"),
        ("cpu, agent.precision float32", "exact, float32"),
        ("cpu, agent.update_rule joint", "joint, bfloat16"),
    ],
)
def test_the_updates_on_tiny_reach_are_means_of_all_seeds(label: str, name: str) -> None:
    seeds = runs("update.csv", label, "tiny-reach").values()
    cells = []
    for at in (1000, 2000, 3000):
        values = [found[at] for found in seeds]
        cells.append(f"{fmean(values):.1f} ({min(values):.1f} to {max(values):.1f})")
    assert f"| {name}, {len(seeds)} seeds | {' | '.join(cells)} |" in TEXT


@pytest.mark.parametrize(
    ("file", "label", "name"),
    [
        ("update.csv", "cpu", "from scratch"),
        ("transfer/pretrained.csv", "cpu, encoder pretrained", "pretrained on the random policy's frames"),
    ],
)
def test_an_agent_from_a_pretrained_encoder(file: str, label: str, name: str) -> None:
    found = runs(file, label, "cartpole-swingup")
    seeds = [found[seed] for seed in (1, 2, 3)]
    cells = [" ".join(f"{seed[at]:.0f}" for seed in seeds) for at in range(0, 50_001, 10_000)]
    mean = f"{fmean(seed[50_000] for seed in seeds):.0f}"
    assert f"| {' | '.join([name, *cells, mean])} |" in TEXT


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("sb3 nature", "Stable-Baselines3's own"),
        ("sb3 curl", "ours and the CURL loss"),
        ("sb3 tiny36", "ours, trained before, frozen"),
    ],
)
def test_the_rows_of_stable_baselines3(label: str, name: str) -> None:
    seeds = runs("transfer/sb3.csv", label, "tiny-reach").values()
    cells = [" ".join(f"{seed[at]:.1f}" for seed in seeds) for at in range(1000, 4001, 1000)]
    assert f"| {' | '.join([name, *cells])} |" in TEXT


@pytest.mark.parametrize(
    ("method", "name", "epochs"),
    [
        ("simclr", "SimCLR", 8),
        ("curl", "CURL's bilinear loss, embeddings standardised", 5),
        ("barlow", "Barlow Twins", 8),
        ("moco", "MoCo v2", 8),
        ("simsiam", "SimSiam", 20),
        ("byol", "BYOL", 20),
    ],
)
def test_the_nearest_neighbors_of_images(method: str, name: str, epochs: int) -> None:
    (run,) = [run for run in stored("vision.csv") if run.settings["method"] == method]
    assert run.settings["epochs"] == epochs
    assert run.settings["data"] == "cifar10"
    # An epoch is a whole number of batches, of nearly all of the 50,000 images.
    found = {round(row["images"] / 50_000): row["knn/accuracy"] for row in run.rows if "knn/accuracy" in row}
    cells = [f"{100 * found[at]:.1f}" for at in (2, 4, 6, 8, 12, 16, 20) if at in found]
    if epochs == 5:
        cells.append(f"{100 * found[5]:.1f} (5)")
    assert f"| {name} | {epochs} | {' | '.join(cells)} |" in TEXT


def test_nine_methods_on_cifar10() -> None:
    """Both rows of the table, against what the runs and their evaluation wrote."""
    found = {run.settings["method"]: run for run in stored("cifar10-methods.csv")}
    measured = json.loads((RESULTS / "vision" / "protocols-methods.json").read_text())["rows"]
    scores = {row["name"].split(" cpu")[0]: row["scores"] for row in measured}
    header, _, knn, linear = TEXT[TEXT.index("| | supcon (labels) |") :].splitlines()[:4]
    columns = [name.strip().split(" ")[0] for name in header.split("|")[2:-1]]
    assert {*columns} == {*found, "untrained", "raw"}
    for column, near, line in zip(columns, knn.split("|")[2:-1], linear.split("|")[2:-1], strict=True):
        (of,) = [scores[name] for name in scores if name.startswith(column)]
        assert float(near) == pytest.approx(100 * of["knn"]["mean"], abs=0.051)
        if column in found:
            assert found[column].settings["epochs"] == 2
            (own,) = [row["knn/accuracy"] for row in found[column].rows if "knn/accuracy" in row]
            assert own == pytest.approx(of["knn"]["mean"], abs=1e-3)
        if column != "raw":
            assert float(line) == pytest.approx(100 * of["linear"]["mean"], abs=0.051)


FILES = sorted(RESULTS.rglob("*.csv"))


@pytest.mark.parametrize("file", FILES, ids=[str(file.relative_to(RESULTS)) for file in FILES])
def test_a_file_says_how_it_was_made(file: Path) -> None:
    assert notes_of(file).keys() == {"command", "commit", "machine", "date"}
    assert f"`cpu/{file.relative_to(RESULTS)}`" in TEXT
