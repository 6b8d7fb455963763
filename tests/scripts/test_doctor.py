"""The doctor on this machine, and with broken libraries: stand-ins that shadow the real ones."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from curl_rl.commands import doctor

DOCTOR = Path(__file__).resolve().parents[2] / "scripts" / "doctor.py"


def run(*arguments: str, python: tuple[str, ...] = (), **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *python, str(DOCTOR), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, timeout=120)


def lines(answer: subprocess.CompletedProcess[str], what: str) -> list[str]:
    """The report's lines about one subject, without the padding of their marks."""
    rows = [line.split(maxsplit=2) for line in answer.stdout.splitlines()]
    return [f"{row[0]} {row[2]}" for row in rows if len(row) == 3 and row[1] == what]


def test_report_on_this_machine() -> None:
    answer = run()
    assert "Traceback" not in answer.stdout + answer.stderr
    for what in ("Python", "packages", "torch", "GPU", "CPU", "rendering", "TensorBoard", "memory", "disk"):
        assert lines(answer, what), f"no line about {what}:\n{answer.stdout}"
    assert importlib.metadata.version("torch") in lines(answer, "torch")[0]
    assert importlib.metadata.version("tensorboard") in lines(answer, "TensorBoard")[0]
    assert len(answer.stdout.splitlines()) <= 24  # a screenful
    failed = any(line.startswith("FAIL") for line in answer.stdout.splitlines())
    assert answer.returncode == (1 if failed else 0)
    assert ("This machine can train." in answer.stdout) == (not failed)


def test_broken_libraries_affect_only_their_own_lines(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("import os\nos.abort()\n")
    (tmp_path / "tensorboard.py").write_text("raise AttributeError('no pkg_resources here\\nand a second line')\n")
    (tmp_path / "mujoco.py").write_text("import sys\nsys.exit('no mujoco')\n")
    (tmp_path / "mujoco-4.0.0.dist-info").mkdir()
    (tmp_path / "mujoco-4.0.0.dist-info" / "METADATA").write_text("Name: mujoco\nVersion: 4.0.0\n")
    answer = run(PYTHONPATH=str(tmp_path))
    assert answer.returncode == 1
    assert "Traceback" not in answer.stdout + answer.stderr
    assert lines(answer, "torch") == ["FAIL the process died (exit code -6)"]
    assert lines(answer, "TensorBoard") == ["FAIL AttributeError: no pkg_resources here"]
    assert lines(answer, "rendering")[0].startswith("FAIL")
    assert "no mujoco" in lines(answer, "rendering")[0]
    assert any(line.startswith("warn mujoco 4.0.0 is outside") for line in lines(answer, "packages"))
    assert lines(answer, "Python")[0].startswith("ok")
    assert lines(answer, "disk")
    assert "cannot train yet: torch, rendering, TensorBoard." in answer.stdout


def test_packages_that_a_newer_python_does_not_get_from_pip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wanted = ["present>=2; python_version < '3'", "absent>=2; python_version < '3'", "needed>=2"]
    for name, version, requirements in (("curl_rl", "0.1.0", wanted), ("present", "1.0", [])):
        about = tmp_path / f"{name}-{version}.dist-info"
        about.mkdir()
        lines_wanted = "".join(f"Requires-Dist: {requirement}\n" for requirement in requirements)
        (about / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n{lines_wanted}")
    monkeypatch.syspath_prepend(tmp_path)
    old, absent, needed, _ = doctor.check_packages()
    assert (old.mark, old.value) == ("warn", "present 1.0 is outside >=2")
    assert (absent.mark, absent.value) == ("warn", "absent is not installed: no DeepMind Control")
    assert shlex.split(absent.remedy) == [sys.executable, str(DOCTOR.parent / "install_dm_control.py")]
    assert (needed.mark, needed.value) == ("FAIL", "needed is not installed")


def test_rendering_that_lacks_dm_control_alone_needs_no_opengl(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise doctor.ProbeFailed("no dm_control")

    monkeypatch.setattr(doctor, "in_own_process", fails)
    (there,) = doctor.check_rendering()
    assert "OpenGL" in there.remedy
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (absent,) = doctor.check_rendering()
    assert (absent.mark, absent.value) == ("FAIL", "no dm_control")
    assert shlex.split(absent.remedy) == [sys.executable, str(DOCTOR.parent / "install_dm_control.py")]


def test_python_without_the_package() -> None:
    answer = run(python=("-S",))  # leaves site-packages out
    assert answer.returncode == 1
    assert "Traceback" not in answer.stdout + answer.stderr
    assert "curl_rl is not installed" in lines(answer, "Python")[0]
    assert "make setup" in answer.stdout


def test_help_explains_and_mistakes_are_refused() -> None:
    helped = run("--help")
    assert helped.returncode == 0
    assert "exit" in helped.stdout
    assert "FAIL" in helped.stdout
    assert run("--fix").returncode == 2


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        ("doctor.in_own_process(time.sleep, 60, timeout=1.0)", "no answer within 1 s"),
        ("doctor.in_own_process(os._exit, 7)", "the process died (exit code 7)"),
        ("doctor.in_own_process(int, 'seven')", "ValueError: invalid literal"),
    ],
)
def test_probe_that_hangs_dies_or_raises(call: str, complaint: str) -> None:
    code = f"import os, time; from curl_rl.commands import doctor\n{call}"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert complaint in answer.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("driver", "cuda", "devices", "mark", "text"),
    [
        (None, None, [], "ok", "none: training runs on the CPU"),
        ("550.1", None, [], "warn", "built for the CPU"),
        ("470.1", "12.8", [], "warn", "driver 470.1 is not usable with CUDA 12.8"),
        ("570.1", "12.8", [("NVIDIA H200", 150e9, 9)], "ok", "NVIDIA H200, 150.0 GB, driver 570.1, bfloat16"),
        ("570.1", "12.8", [("Tesla T4", 16e9, 7)], "warn", "Tesla T4, 16.0 GB, driver 570.1, no bfloat16"),
    ],
)
def test_gpu(
    monkeypatch: pytest.MonkeyPatch,
    driver: str | None,
    cuda: str | None,
    devices: list[Any],
    mark: str,
    text: str,
) -> None:
    answer = {"version": "2.13.0", "cuda": cuda, "devices": devices, "threads": 2}
    monkeypatch.setattr(doctor, "in_own_process", lambda probe: answer)
    monkeypatch.setattr(doctor, "driver_version", lambda: driver)
    _, gpu = doctor.check_torch()
    assert gpu.mark == mark
    assert text in gpu.value
    assert bool(gpu.remedy) == (mark == "warn")


def test_driver_is_read_from_nvidia_smi(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    command = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    command.write_text("#!/bin/sh\necho 570.86.15; echo 570.86.15\n")
    command.chmod(0o755)
    assert doctor.driver_version() == "570.86.15"
    command.write_text("#!/bin/sh\necho no devices were found\nexit 9\n")
    assert doctor.driver_version() is None


@pytest.mark.parametrize(
    ("text", "cores"), [("150000 100000\n", 1.5), ("max 100000\n", None), ("", None)], ids=["limit", "none", "odd"]
)
def test_quota_of_cores(tmp_path: Path, text: str, cores: float | None) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert doctor.quota_of_cores(tmp_path / "cpu.max") == cores
    assert doctor.quota_of_cores(tmp_path / "absent") is None


@pytest.mark.parametrize(("free", "mark"), [(5e9, "ok"), (4.9e9, "warn"), (2e9, "warn"), (1.9e9, "FAIL")])
def test_room(free: float, mark: str) -> None:
    assert doctor.judge_room("memory", int(free), int(5e9), "").mark == mark


def test_the_papers_replay_has_the_size_assumed_here() -> None:
    from curl_rl.rl.replay import Replay, ReplayConfig

    # Main memory is allocated as frames arrive, so an empty replay of any size costs nothing.
    replay = Replay(ReplayConfig(capacity=100_000, storage="memory"), (9, 100, 100), 6, stack=3, device="cpu")
    assert pytest.approx(replay.nbytes, rel=0.02) == doctor.REPLAY_BYTES
