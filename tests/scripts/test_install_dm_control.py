"""Installing dm_control without labmaze: pip itself, offline, with small wheels of the same names."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import zipfile
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels, the only ones that pip finds; what it installs lands in `tmp_path / "installed"`."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_TARGET", str(tmp_path / "installed"))
    return wheels


def write_wheel(folder: Path, name: str, version: str, *requirements: str) -> None:
    about = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": "",
        f"{about}/METADATA": "\n".join(
            ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
            + [f"Requires-Dist: {requirement}" for requirement in requirements]
        ),
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{about}/RECORD"] = "".join(f"{file},,\n" for file in (*files, f"{about}/RECORD"))
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for file, text in files.items():
            wheel.writestr(file, text)


def declare(script: ModuleType, monkeypatch: pytest.MonkeyPatch, folder: Path, marker: str) -> None:
    """Replaces setup.cfg by one that declares dm-control with `marker`."""
    lines = f"    dm-control>=1.0.48,<=1.0.50; {marker}\n    mujoco>=3.15,<3.18\n"
    (folder / "setup.cfg").write_text(f"[options]\ninstall_requires =\n    # a comment\n    numpy>=1.26\n{lines}")
    monkeypatch.setattr(script, "ROOT", folder)


def test_everything_but_labmaze_is_installed(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: Path
) -> None:
    declare(script, monkeypatch, tmp_path, "python_version < '3'")
    write_wheel(offline, "dm_control", "1.0.49", "yesterdays")
    write_wheel(offline, "dm_control", "1.0.50", "labmaze", "glasses>=2", "h5py; extra == 'hdf5'", "mujoco>=3.16")
    write_wheel(offline, "dm_control", "1.0.51", "labmaze")
    for name, version in (("glasses", "2.1"), ("mujoco", "3.15.0"), ("mujoco", "3.17.0"), ("mujoco", "4.0.0")):
        write_wheel(offline, name, version)
    assert script.main([]) == 0
    found = importlib.metadata.distributions(path=[str(tmp_path / "installed")])
    installed = {distribution.name: distribution.version for distribution in found}
    assert installed == {"dm_control": "1.0.50", "glasses": "2.1", "mujoco": "3.17.0"}


def test_failure_of_pip_is_passed_on(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    offline: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    declare(script, monkeypatch, tmp_path, "python_version < '3'")
    assert script.main([]) == 1
    assert "No matching distribution found for dm-control" in capfd.readouterr().err


def test_nothing_is_installed_where_pip_takes_dm_control_itself(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: Path
) -> None:
    declare(script, monkeypatch, tmp_path, "python_version > '3'")
    assert script.main([]) == 0
    assert not (tmp_path / "installed").exists()


def test_an_environment_without_pip_is_refused_in_one_line(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pip" else find_spec(name))
    with pytest.raises(SystemExit) as stop:
        script.main([])
    assert stop.value.code == 2
    assert "must have curl_rl and pip installed, got no pip" in capsys.readouterr().err.splitlines()[-1]


def test_requirements_are_those_of_this_python_and_of_no_extra(script: ModuleType) -> None:
    lines = [
        "absl-py>=0.7.0",
        "labmaze",
        "early; python_version < '3'",
        "late; python_version > '3'",
        'h5py; extra == "x"',
    ]
    assert script.without_labmaze(lines) == ["absl-py>=0.7.0", 'late; python_version > "3"']


def test_ranges_are_those_of_setup_cfg(script: ModuleType) -> None:
    assert importlib.metadata.version("dm-control") in script.declared("dm-control").specifier
    assert importlib.metadata.version("mujoco") in script.declared("mujoco").specifier
