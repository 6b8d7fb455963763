"""The command as a user types it: its output, its exit code, and resuming."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from curl_rl.runs.checkpoint import load_newest
from curl_rl.runs.logger import read_metrics
from curl_rl.vision.evaluation.comparison import evaluate_runs
from curl_rl.vision.evaluation.protocols import EvaluationConfig

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "pretrain_vision.py"
LINE = (
    "--method simclr --preset cpu --device cpu --compute.threads 1 --epochs 2 --batch_size 6 --image_size 8 "
    "--encoder.resnet.width 0.0625 --encoder.precision float32 --augment.size 8 --knn.every 1 --knn.k 3 "
    "--checkpoint.every 2 --log.every 2 --log.projector 0"
)
TINY = LINE.split()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for part, count in (("train", 10), ("test", 2)):
        for label in ("one", "two"):
            (folder / part / label).mkdir(parents=True)
            for number in range(count):
                pixels = np.random.default_rng([len(part), len(label), number]).integers(0, 256, (8, 8, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(folder / part / label / f"{number}.png")
    return folder


@pytest.fixture
def command(command: Any, data: Path) -> Any:
    """Runs the script on the tiny folder."""
    return lambda *arguments: command("--data", data, *TINY, *arguments)


def weights(run: Path) -> Any:
    found = load_newest(run / "checkpoints", read_only=True)
    assert found is not None
    return {name: value.tolist() for name, value in found[1]["learner"]["networks"].items()}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("--method simclear", "method must be curl or simclr or .*, got simclear"),
        ("--preset cpuu", "unknown preset cpuu; presets are cifar10, cpu, digits, frames; did you mean cpu?"),
        ("--batchsize 3", "did you mean --batch_size?"),
        ("--epochs 0", "epochs must be at least 1, got 0"),
        ("--batch_size 1", "batch_size must be at least 2, got 1"),
        ("--batch_size 21", "batch_size 21 is larger than .*, which has 20 images"),
        ("--augment.size 9", "augment.size 9 is larger than the images of .*, which are 8×8"),
        ("--image_size 9", "size 9 is larger than 20 images"),
        (
            "--method moco --objectives.moco.queue 5",
            "objectives.moco.queue must be at least 6, the keys of one",
        ),
        ("--objectives.simclr.temperature 0", "objectives.simclr.temperature must be positive, got 0"),
        ("--optimizer.warmup_epochs 2", "optimizer.warmup_epochs must be below epochs 2, got 2"),
        ("--encoder.resnet.depth 19", "encoder.resnet.depth must be .*, got 19"),
        ("--device cuda:99", "device cuda:99 not found"),
        ("--data /nowhere", "no folder /nowhere"),
        ("--run /dev/null/run", "cannot write to /dev/null/run: Not a directory"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: str, line: str
) -> None:
    assert command("--run", tmp_path / "run", *arguments.split()) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(f"pretrain_vision.py: error: .*{re.escape(line) if '?' in line else line}.*\n", printed.err)
    assert not (tmp_path / "run").exists()


def test_only_one_of_many_processes_reports_a_mistake(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for rank, lines in (("0", 1), ("1", 0)):
        monkeypatch.setenv("RANK", rank)
        assert command("--run", tmp_path / "run", "--epochs", 0) == 2
        assert len(capsys.readouterr().err.splitlines()) == lines


def test_a_relative_folder_is_found_from_elsewhere(
    command: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data.parent)
    assert command("--run", tmp_path / "run", "--data", data.name) == 0
    monkeypatch.chdir(tmp_path)
    assert evaluate_runs([tmp_path / "run"], EvaluationConfig(protocols=("knn",)))[0].voting == (3, 0.1)


def test_help_is_exit_code_0_and_shows_the_flags(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--help") == 0
    printed = capsys.readouterr().out
    assert re.search(r"\n +python scripts/pretrain_vision.py --method moco --data cifar10/", printed)
    for flag in ("--objectives.simclr.temperature", "--augment.blur", "--encoder.resnet.depth", "--optimizer.lr"):
        assert flag in printed


def test_a_run_and_the_same_command_again(command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--run", tmp_path / "one") == 0
    assert "done: 2 epochs" in capsys.readouterr().err
    assert command("--run", tmp_path / "other", "--config", tmp_path / "one" / "config.yaml") == 0
    assert weights(tmp_path / "one") == weights(tmp_path / "other")
    capsys.readouterr()
    assert command("--run", tmp_path / "one") == 0
    assert "this run is complete at 2 epochs" in capsys.readouterr().err
    assert command("--run", tmp_path / "one", "--method", "byol") == 2
    assert "method: simclr → byol" in capsys.readouterr().err


def test_a_fault_is_one_line_and_exit_code_1(command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--run", tmp_path / "run", "--optimizer.name", "sgd", "--optimizer.lr", "1e30") == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("pretrain_vision.py")]
    assert re.search(r"stopped at epoch .*: no longer finite: .*; .*fault\.txt", line)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_run_and_the_same_command_resumes_it(
    command: Any, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], number: int, code: int
) -> None:
    run = tmp_path / "run"
    line = [sys.executable, str(SCRIPT), "--data", str(data), *TINY, "--run", str(run), "--epochs", "2000"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for _ in range(1200):
        if list(run.glob("checkpoints/*.ckpt")) or process.poll() is not None:
            break
        time.sleep(0.05)
    process.send_signal(number)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == code, output
    assert "Traceback" not in output
    assert "saved at epoch" in output


def in_two_processes(*arguments: str) -> subprocess.CompletedProcess[str]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    line = [*launcher, "--", str(SCRIPT), *arguments]
    return subprocess.run(line, capture_output=True, text=True, env=environment, timeout=300, check=False)


@pytest.mark.slow
def test_two_processes_learn_the_same_as_one(data: Path, tmp_path: Path) -> None:
    # Each process draws its own views, so only their number and the order of images agree: with identity views the
    # runs are the same up to rounding.
    plain = "--augment.scale [1.0,1.0] --augment.ratio [1.0,1.0] --augment.mirror 0 --augment.jitter 0 "
    plain += "--augment.greyscale 0 --batch_size 5 --optimizer.name sgd --optimizer.lr 0.01 --log.every 1 "
    plain += "--log.images_every 0"
    arguments = ["--data", str(data), *TINY, *plain.split()]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, str(SCRIPT), *arguments, "--run", str(tmp_path / "one")], check=True, env=environment
    )
    done = in_two_processes(*arguments, "--run", str(tmp_path / "two"))
    assert done.returncode == 0, done.stderr
    losses = [
        [row["loss"] for row in read_metrics(tmp_path / run / "metrics.jsonl", "images") if "loss" in row]
        for run in ("one", "two")
    ]
    # Rounding grows from step to step, most of all through batch norm over five images.
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, value in one.items():
        assert torch.allclose(torch.tensor(value).float(), torch.tensor(two[name]).float(), rtol=1e-2, atol=1e-3), name


@pytest.mark.slow
def test_two_processes_resume_and_are_refused_together(data: Path, tmp_path: Path) -> None:
    """MoCo with shuffled batch norm, each process with its own parts of the batch."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    settings = "--objectives.moco.queue 12 --objectives.moco.dim 4 --encoder.resnet.batch_norm_splits 2 "
    settings += "--checkpoint.keep 9 --log.images_every 0 --method moco"
    arguments = ["--data", str(data), *TINY, *settings.split(), "--run", str(run)]
    done = in_two_processes(*arguments)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("this run") == done.stderr.count("resumed") == 0
    shutil.copytree(run, whole)
    latest = sorted((run / "checkpoints").glob("*.ckpt"))[-1]
    for path in (latest, *run.glob("encoder.*")):
        path.unlink()
    done = in_two_processes(*arguments)
    assert done.returncode == 0, done.stderr
    assert "resumed at epoch" in done.stderr
    assert weights(run) == weights(whole), "a process that had started over would have changed them"

    refused = in_two_processes(*arguments, "--method", "byol")
    assert refused.returncode != 0
    assert refused.stderr.count("method: moco → byol") == 1, "both are refused, one reports it"
    assert "closed by peer" not in refused.stderr
    assert "exitcode  : 2" in refused.stderr
