"""The command as a user types it: its output, its exit code, and resuming."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from curl_rl.rl.config import read_config
from curl_rl.rl.loading import load_agent
from curl_rl.runs.logger import read_metrics
from envs.tiny import TinyReach

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "train_agent.py"
LINE = (
    "--env tiny-reach --preset cpu --device cpu --compute.threads 1 --frames 120 --environment.size 12 "
    "--agent.crop 10 --agent.batch_size 4 --agent.hidden 8 --agent.encoder.filters 2 --agent.encoder.strides [2] "
    "--agent.encoder.latent 4 --agent.precision float32 --training.random_steps 20 --replay.capacity 100 "
    "--evaluation.every 60 --evaluation.episodes 1 --checkpoint.every 35 --log.every 30 --log.images_every 60"
)
TINY = LINE.split()


def rows(run: Path) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in row.items() if name != "wall_time" and not name.startswith("speed/")}
        for row in read_metrics(run / "metrics.jsonl")
    ]


def weights(run: Path) -> list[Any]:
    return [value.tolist() for value in load_agent(run, "cpu")[0].state_dict().values()]


# ---- mistakes: exit code 2, one line


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("--env cheeta-run", "environment 'cheeta-run' is unknown; the nearest is 'cheetah-run'"),
        ("--preset crl", "unknown preset crl; .*did you mean curl?"),
        ("--agent.batchsize 3", "did you mean --agent.batch_size?"),
        ("--frames 0", "frames must be at least 1 .*, got 0"),
        ("--frames many", "frames must be a whole number, got many"),
        ("--seed -1", "seed must be 0 or more .*, got -1"),
        ("--agent.crop 13", "agent.crop 13 is larger than environment.size 12"),
        ("--agent.crop 2", "an image of 2×2 is too small"),
        ("--replay.capacity 3", "replay.capacity 3 is smaller than agent.batch_size 4"),
        ("--replay.capacity 24", "replay.capacity 24 is smaller than an episode of tiny-reach: 25 agent steps"),
        ("--device cuda:99", "device cuda:99 not found"),
        ("--config /nowhere.yaml", "cannot read /nowhere.yaml: No such file or directory"),
        ("--env gym:NoSuch-v0", "gym:NoSuch-v0 cannot be created"),
        ("--run /dev/null/run", "cannot write to /dev/null/run: Not a directory"),
        ("--run=", "--run has no value"),
        ("--seed=", "--seed has no value"),
        ("--agent 3", "agent must hold settings by name, such as --agent.objective, got 3"),
        (
            "--agent.objective moco --objectives.moco.queue 3",
            "objectives.moco.queue must be at least 4, the keys of one batch, got 3",
        ),
        ("--encoder /nowhere", "encoder: no encoder in /nowhere: encoder.safetensors is missing"),
        (
            "--agent.freeze_encoder true",
            "agent.freeze_encoder leaves agent.objective curl .*: add --agent.objective none",
        ),
        ("--encoder_sha256 ab", "encoder_sha256 is the hash of the weights in --encoder, which is not set"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: str, line: str
) -> None:
    assert command("--run", tmp_path / "run", *TINY, *arguments.split()) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(f"train_agent.py: error: .*{line}.*\n", printed.err)
    assert not (tmp_path / "run").exists()


def test_a_directory_of_something_else(command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").touch()
    for more in ((), ("--fresh",)):
        assert command(*TINY, "--run", tmp_path, *more) == 2
        assert re.fullmatch(
            "train_agent.py: error: .* is not empty and not a run directory.*\n", capsys.readouterr().err
        )
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_backend_that_does_not_exist_is_one_line(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, str(SCRIPT), "--env", "cartpole-swingup", "--preset", "cpu", "--run", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        env=os.environ | {"MUJOCO_GL": "broken"},
        timeout=120,
    )
    assert answer.returncode == 2
    assert re.fullmatch("train_agent.py: error: .*MUJOCO_GL.*broken.*\n", answer.stderr)
    assert not (tmp_path / "run").exists()


def test_missing_dm_control_is_one_line_with_its_remedy(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "dm_control", None)  # as after pip install on Python 3.13
    assert command("--env", "cartpole-swingup", "--preset", "cpu", "--run", tmp_path / "run") == 2
    line = "train_agent.py: error: .*dm_control, which is not installed: run python scripts/install_dm_control.py\n"
    assert re.fullmatch(line, capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


def test_help_is_exit_code_0(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--help") == 0
    # The description's commands are on separate lines.
    assert re.search(r"\n +python scripts/train_agent.py --env cheetah-run +# ", capsys.readouterr().out)


# ---- a run


def test_a_run_another_with_its_configuration_and_the_same_command_again(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*TINY, "--run", tmp_path / "one") == 0
    printed = capsys.readouterr().err
    assert "done: 120 frames" in printed
    assert "estimate: about" in printed
    assert command("--config", tmp_path / "one" / "config.yaml", "--run", tmp_path / "other") == 0
    assert weights(tmp_path / "one") == weights(tmp_path / "other")
    assert rows(tmp_path / "one") == rows(tmp_path / "other")
    assert command(*TINY, "--run", tmp_path / "one") == 0
    assert "this run is complete at 120 frames" in capsys.readouterr().err
    assert command(*TINY, "--run", tmp_path / "one", "--seed", 2) == 2
    assert "seed: 1 → 2" in capsys.readouterr().err
    assert command(*TINY, "--run", tmp_path / "one", "--frames", 130) == 0
    assert read_config(tmp_path / "one" / "config.yaml").frames == 130


def test_a_fault_is_one_line_and_exit_code_1(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    render, calls = TinyReach.render, itertools.count()

    def breaks(env: TinyReach) -> Any:
        if next(calls) < 9:  # at the door a fault is a mistake of the user's, with exit code 2
            return render(env)
        raise RuntimeError("the renderer\nis gone")

    monkeypatch.setattr(TinyReach, "render", breaks)
    assert command(*TINY, "--run", tmp_path / "run") == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("train_agent.py")]
    assert re.search(r"stopped at \d+ frames .*: the renderer is gone; .*fault\.txt", line)


# ---- signals, to a separate process


def start(run: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), *TINY, "--run", str(run), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for_the_first_checkpoint(process: subprocess.Popen[str], run: Path) -> None:
    for _ in range(1200):
        if list(run.glob("checkpoints/*.ckpt")):
            return
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    process.kill()
    raise AssertionError("no checkpoint within a minute")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_a_signal_ends_the_run_and_the_same_command_resumes_it(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], number: int, code: int
) -> None:
    process = start(tmp_path / "run", "--frames", "100000")
    wait_for_the_first_checkpoint(process, tmp_path / "run")
    process.send_signal(number)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == code
    assert "Traceback" not in output
    assert ("saved at" in output) == (number != signal.SIGKILL)

    _, _, frames = load_agent(tmp_path / "run", "cpu")
    budget = ("--frames", frames + 60)
    assert command(*TINY, "--run", tmp_path / "run", *budget) == 0
    assert f"resumed at {frames:,} of" in capsys.readouterr().err
    assert command(*TINY, "--run", tmp_path / "alone", *budget) == 0
    assert weights(tmp_path / "run") == weights(tmp_path / "alone")
    assert rows(tmp_path / "run") == rows(tmp_path / "alone")
