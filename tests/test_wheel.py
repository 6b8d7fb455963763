"""The wheel: what is in it, and that its command works in a folder that has nothing to do with a clone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "MANIFEST.in", "LICENSE"):
        shutil.copy(ROOT / name, source)
    (source / "README.md").write_text("# curl_rl\n")
    for name in ("curl_rl", "envs", "scripts", "configs", "tests/helpers"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    # Without isolation nothing is downloaded.
    options = ["--no-deps", "--no-build-isolation", "--wheel-dir", folder]
    subprocess.run([*PIP, "wheel", *options, source], check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of a package that was installed from the wheel."""
    site = tmp_path_factory.mktemp("site")
    subprocess.run([*PIP, "install", "--no-deps", "--target", site, wheel], check=True, capture_output=True)
    return site / "bin" / "curl-rl"


def call(command: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # The site comes before the clone, which this environment may know too.
    environment = os.environ | {"PYTHONPATH": str(command.parents[1]), "PYTHONNOUSERSITE": "1"}
    return subprocess.run(
        [sys.executable, command, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )


def test_wheel_holds_the_package_its_environments_and_presets_and_nothing_else(wheel: Path) -> None:
    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    beside = [*(ROOT / "envs").rglob("*.py"), *(ROOT / "configs").rglob("*.yaml")]
    expected = {str(path.relative_to(ROOT)) for path in (ROOT / "curl_rl").rglob("*.py")}
    expected |= {f"curl_rl/{path.relative_to(ROOT)}" for path in beside} | {
        "curl_rl/py.typed",
        "curl_rl/report/published.csv",
    }
    assert shipped == expected
    assert any(name.endswith("LICENSE") for name in zipfile.ZipFile(wheel).namelist())


def test_installed_sweep_starts_the_installed_command(installed: Path, tmp_path: Path) -> None:
    answer = call(installed, tmp_path, "sweep", "--env", "tiny-reach", "--preset", "cpu", "--dry_run")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith(f"{sys.executable} -m curl_rl train --env tiny-reach --preset cpu --seed 1 --run ")


def test_installed_command_trains_and_evaluates_beside_a_folder_called_envs(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "__init__.py").write_text("raise RuntimeError('this is not the package')\n")
    tiny = (
        *(
            "--preset",
            "cpu",
            "--device",
            "cpu",
            "--agent.batch_size",
            "4",
            "--agent.hidden",
            "8",
            "--agent.encoder.filters",
        ),
        *("2", "--training.random_steps", "8", "--evaluation.episodes", "1", "--evaluation.video", "false"),
    )
    more = ("--training.environments", "2", "--frames", "40")  # other processes import the environments anew
    trained = call(installed, tmp_path, "train", "--env", "tiny-reach", *tiny, *more)
    assert trained.returncode == 0, trained.stderr
    assert "play it with: curl-rl evaluate runs/tiny-reach/cpu/seed1" in trained.stderr
    played = call(installed, tmp_path, "evaluate", "runs/tiny-reach/cpu/seed1", "--episodes", "1")
    assert played.returncode == 0, played.stderr
    assert "40 frames of training" in played.stdout


def test_installed_package_finds_its_own_environments_and_presets(installed: Path, tmp_path: Path) -> None:
    code = (
        "import curl_rl, curl_rl.envs, curl_rl.installation\n"
        "print(curl_rl.envs.__file__, curl_rl.installation.CONFIGS, curl_rl.installation.IS_CLONE)"
    )
    environment = os.environ | {"PYTHONPATH": str(installed.parents[1])}
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    package = installed.parents[1] / "curl_rl"
    assert answer.stdout.split() == [str(package / "envs" / "__init__.py"), str(package / "configs"), "False"]


def test_mistakes_of_the_installed_command_are_one_line(installed: Path, tmp_path: Path) -> None:
    for arguments, line in (
        (("trian",), "curl-rl: error: unknown command trian; did you mean train?"),
        (
            ("train", "--preset", "gpu"),
            "curl-rl train: error: unknown preset gpu; presets are cpu, curl, official, sac",
        ),
    ):
        answer = call(installed, tmp_path, *arguments)
        assert (answer.returncode, answer.stdout) == (2, "")
        (error,) = answer.stderr.splitlines()
        assert error.startswith(line)
