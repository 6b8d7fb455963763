"""Rows of a table: how runs are grouped and evaluated, and how the table is written."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from curl_rl.artifacts.encoder_file import save_encoder
from curl_rl.runs.errors import UserError
from curl_rl.vision import config as vision_config
from curl_rl.vision.config import SCHEMA, load_preset
from curl_rl.vision.evaluation import comparison
from curl_rl.vision.evaluation.comparison import Row, evaluate_runs, report, table
from curl_rl.vision.evaluation.finetuning import Crops
from curl_rl.vision.evaluation.linear_probe import LinearProbeConfig
from curl_rl.vision.evaluation.protocols import EvaluationConfig, Voting
from curl_rl.vision.evaluation.saved_runs import read_run
from helpers.small_resnet import resnet

KNN = EvaluationConfig(protocols=("knn",), k=5, temperature=0.2)
QUICK = LinearProbeConfig(l2_count=3)


# ------------------------------------------------------------------------ runs


@pytest.fixture
def presets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A preset with one setting and a table without rules."""
    directory = tmp_path / "presets"
    directory.mkdir()
    (directory / "tiny.yaml").write_text("epochs: 3\n")
    (directory / "methods.yaml").write_text("rules: []\n")
    monkeypatch.setattr(vision_config, "PRESETS", directory)
    monkeypatch.setattr(vision_config, "METHODS", directory / "methods.yaml")


def write_images(folder: Path, side: int = 8) -> Path:
    """Light and dark images, eight of each for training and four for testing."""
    random = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 4)):
        for base, name in ((0, "dark"), (150, "light")):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(base, base + 100, (side, side, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")
    return folder


def write_run(directory: Path, data: Path, seed: int, epochs: float = 3, **changes: Any) -> Path:
    config = load_preset("tiny", changes.pop("method", "simclr"), {"data": str(data), "seed": seed, **changes})
    directory.mkdir()
    SCHEMA.save(config, directory / "config.yaml")
    save_encoder(resnet(seed), directory, rendered_size=8, provenance={"epochs": epochs})
    return directory


RUNS = EvaluationConfig(protocols=("knn", "linear"), k=3, linear=LinearProbeConfig(l2_count=2, held_out=0.25))


@pytest.mark.usefixtures("presets")
def test_runs_that_differ_only_in_their_seeds_share_a_row(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data")
    runs = [
        write_run(tmp_path / "one", data, 1),
        write_run(tmp_path / "hot", data, 1, objectives={"simclr": {"temperature": 0.7}}),
        write_run(tmp_path / "two", data, 2, device="cpu"),
        write_run(tmp_path / "byol", data, 1, method="byol"),
    ]
    rows = evaluate_runs(runs, dataclasses.replace(KNN, k=3), untrained=True, raw_pixels=True)
    assert [(row.name, row.seeds) for row in rows] == [
        ("simclr tiny", (1, 2)),
        ("simclr tiny, objectives.simclr.temperature 0.7", (1,)),
        ("byol tiny", (1,)),
        ("untrained ResNet-18, width 0.0625", (1, 2)),
        ("raw pixels", ()),
    ]
    assert rows[0].runs == (str(runs[0]), str(runs[2]))
    assert rows[3].runs == ()
    alone = [evaluate_runs([run], dataclasses.replace(KNN, k=3))[0] for run in (runs[0], runs[2])]
    assert rows[0].scores == {"knn": tuple(row.scores["knn"][0] for row in alone)}


@pytest.mark.usefixtures("presets")
def test_transfer_and_other_data(tmp_path: Path) -> None:
    first, second = write_images(tmp_path / "first"), write_images(tmp_path / "second", side=9)
    for path in sorted(second.rglob("*.png"))[::2]:
        Image.new("RGB", (9, 9)).save(path)  # half of the images are black, whatever their class
    run = write_run(tmp_path / "run", first, 1)
    (row,) = evaluate_runs([run], RUNS, transfer=str(second))
    assert list(row.scores) == ["knn", "linear", "transfer_knn", "transfer_linear"]
    (elsewhere,) = evaluate_runs([run], RUNS, data=str(second))
    assert {f"transfer_{name}": value for name, value in elsewhere.scores.items()}.items() <= row.scores.items()
    assert row.scores["transfer_knn"] != row.scores["knn"]


@pytest.mark.usefixtures("presets")
def test_runs_on_different_data_have_separate_rows(tmp_path: Path) -> None:
    data = [write_images(tmp_path / name) for name in ("first", "second")]
    runs = [write_run(tmp_path / f"run {path.name}", path, 1) for path in data]
    rows = evaluate_runs(runs, KNN, raw_pixels=True)
    assert [row.name for row in rows] == [
        *(f"simclr tiny, {path}" for path in data),
        *(f"raw pixels, {path}" for path in data),
    ]
    with pytest.raises(ValueError, match=r"is a second run of simclr tiny, seed 1: pass fewer directories"):
        evaluate_runs(runs, KNN, data=str(data[0]))


@pytest.mark.usefixtures("presets")
def test_the_row_of_an_unfinished_run_is_marked(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data")
    runs = [write_run(tmp_path / f"{epochs}", data, 1, epochs) for epochs in (3.0, 1.25)]
    rows = evaluate_runs(runs, dataclasses.replace(KNN, k=3))
    assert [row.name for row in rows] == ["simclr tiny", "simclr tiny, unfinished after 1.25 of 3 epochs"]


@pytest.mark.usefixtures("presets")
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "config.yaml").unlink(), r"is not a run directory \(config.yaml is missing\)"),
        (
            lambda run: (run / "config.yaml").write_text("env: a\n"),
            "is not a run of .*vision.py, but of .*agent.py",
        ),
        (lambda run: (run / "encoder.safetensors").unlink(), "no encoder in .*: encoder.safetensors is missing"),
    ],
)
def test_unusable_runs_are_refused(tmp_path: Path, spoil: Any, message: str) -> None:
    run = write_run(tmp_path / "run", write_images(tmp_path / "data"), 1)
    spoil(run)
    with pytest.raises(ValueError, match=message) as error:
        evaluate_runs([run], KNN)
    assert str(run) in str(error.value)


@pytest.mark.usefixtures("presets")
def test_neighbors_vote_by_the_runs_settings(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data")
    knn = EvaluationConfig(protocols=("knn",))
    # Sixteen images: with a larger k, all of them vote.
    run = write_run(tmp_path / "run", data, 1, knn={"k": 3, "temperature": 0.5})
    many = write_run(tmp_path / "many", data, 1, knn={"k": 200})
    (row,) = evaluate_runs([run], knn)
    assert row.voting == (3, 0.5)
    assert row.scores == evaluate_runs([run], dataclasses.replace(knn, k=3, temperature=0.5))[0].scores
    assert evaluate_runs([many], knn)[0].voting == (16, 0.1)
    assert evaluate_runs([run], dataclasses.replace(knn, k=5))[0].voting == (5, 0.5)
    with pytest.raises(UserError, match=r"knn.k are 3 and 200, but a table needs a single one: set --k 3"):
        evaluate_runs([run, many], knn)


@pytest.mark.usefixtures("presets")
def test_fine_tuning_uses_crops_like_the_runs_views(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Crops | None] = []

    def fake(*arguments: Any, config: EvaluationConfig) -> dict[str, float]:
        given.append(config.crops)
        return {"fine_tune_10%": 0.5}

    for name in ("evaluate_encoder", "evaluate_untrained"):
        monkeypatch.setattr(comparison, name, fake)
    data, tuned = write_images(tmp_path / "data"), EvaluationConfig(protocols=("fine_tune",), labels=(0.1,))
    digits = write_run(tmp_path / "digits", data, 1, augment={"size": 8, "scale": [0.4, 1.0], "mirror": 0.0})
    photos = write_run(tmp_path / "photos", data, 1, augment={"size": 8, "scale": [0.2, 1.0], "mirror": 0.5})
    rows = evaluate_runs([digits, photos], tuned, untrained=True)
    assert given == [(0.4, 0.0)] * 2 + [(0.2, 0.5)] * 2, "the untrained network is given the same"
    assert [row.as_dict()["crops"] for row in rows] == [
        {"scale": scale, "mirror": mirror} for scale, mirror in ((0.4, 0.0), (0.2, 0.5)) * 2
    ]
    assert len({row.name for row in rows}) == 4
    given.clear()
    rows = evaluate_runs([digits, photos], dataclasses.replace(tuned, crops=Crops(1.0, 0.0)), untrained=True)
    assert given == [(1.0, 0.0)] * 3, "the untrained network once"


@pytest.mark.usefixtures("presets")
def test_plain_crops_are_neither_scaled_nor_mirrored(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data")
    plain = {"size": 6, "crop": "plain", "scale": [0.4, 1.0], "mirror": 0.5}
    run = read_run(write_run(tmp_path / "run", data, 1, augment=plain), "cpu")
    assert run.crops == (pytest.approx(36 / 64), 0.0), "windows of 6 pixels of images of 8"


@pytest.mark.usefixtures("presets")
def test_the_probe_accuracy_is_the_last_one_in_the_log(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", write_images(tmp_path / "data"), 1)
    config = EvaluationConfig(protocols=("probe", "knn"), k=3)
    with pytest.raises(UserError, match=r"has no probe/test_accuracy in its log"):
        evaluate_runs([run], config)
    (run / "metrics.jsonl").write_text(
        '{"images": 5, "probe/test_accuracy": 0.25}\n{"images": 9, "probe/test_accuracy": 0.75}\n{"images": 9}\n'
    )
    rows = evaluate_runs([run], config, untrained=True)
    assert list(rows[0].scores) == ["probe", "knn"]
    assert rows[0].scores["probe"] == (0.75,)
    assert list(rows[1].scores) == ["knn"]
    with pytest.raises(UserError, match="leave out --data, or probe"):
        evaluate_runs([run], config, data="digits")


# ------------------------------------------------------------------------ the table


ROWS = [
    Row(
        "simclr cpu",
        ("a", "b", "c"),
        (1, 2, 3),
        {"knn": (0.5, 0.6, 0.7), "linear": (0.75, 0.75, 0.75)},
        Voting(20, 0.07),
    ),
    Row("raw pixels", (), (), {"knn": (0.345,)}, Voting(20, 0.07)),
]


def test_mean_and_sample_standard_deviation() -> None:
    assert ROWS[0].mean("knn") == pytest.approx(0.6)
    assert ROWS[0].spread("knn") == pytest.approx(0.1)  # √((0.01 + 0 + 0.01) / 2)
    assert ROWS[1].spread("knn") is None


def test_the_table_is_markdown_in_percent() -> None:
    assert table(ROWS, EvaluationConfig()).splitlines() == [
        "Top-1 in %, last epoch: kNN with k 20 and temperature 0.07, linear evaluation.",
        "",
        "|            | seeds | knn           | linear       |",
        "| ---        | ---:  | ---:          | ---:         |",
        "| simclr cpu | 3     | 60.00 ± 10.00 | 75.00 ± 0.00 |",
        "| raw pixels | –     | 34.50         | –            |",
    ]


def test_the_report_holds_every_score_and_setting() -> None:
    config = EvaluationConfig(seed=3)
    written = report(ROWS, config)
    assert written["protocols"] == dataclasses.asdict(config) | {"k": 20, "temperature": 0.07}
    assert written["rows"][0]["seeds"] == [1, 2, 3]
    assert written["rows"][0]["scores"]["linear"] == {"mean": 0.75, "std": 0.0, "each": [0.75, 0.75, 0.75]}
    assert written["rows"][1]["scores"] == {"knn": {"mean": 0.345, "std": None, "each": [0.345]}}
