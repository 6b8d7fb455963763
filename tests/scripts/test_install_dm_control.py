"""Installing dm_control without labmaze: pip itself, offline, with small wheels of the same names."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import zipfile
from pathlib import Path

import pytest

from curl_rl.commands import install_dm_control


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


def declare(monkeypatch: pytest.MonkeyPatch, marker: str) -> None:
    """Lets the package's metadata declare dm-control with `marker`."""
    requirements = ["numpy>=1.26", f"dm-control>=1.0.48,<=1.0.50; {marker}", "mujoco>=3.15,<3.18"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: requirements)


def test_everything_but_labmaze_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: Path) -> None:
    declare(monkeypatch, "python_version < '3'")
    write_wheel(offline, "dm_control", "1.0.49", "yesterdays")
    write_wheel(offline, "dm_control", "1.0.50", "labmaze", "glasses>=2", "h5py; extra == 'hdf5'", "mujoco>=3.16")
    write_wheel(offline, "dm_control", "1.0.51", "labmaze")
    for name, version in (("glasses", "2.1"), ("mujoco", "3.15.0"), ("mujoco", "3.17.0"), ("mujoco", "4.0.0")):
        write_wheel(offline, name, version)
    assert install_dm_control.main([]) == 0
    found = importlib.metadata.distributions(path=[str(tmp_path / "installed")])
    installed = {distribution.name: distribution.version for distribution in found}
    assert installed == {"dm_control": "1.0.50", "glasses": "2.1", "mujoco": "3.17.0"}


def test_failure_of_pip_is_passed_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    offline: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    declare(monkeypatch, "python_version < '3'")
    assert install_dm_control.main([]) == 1
    assert "No matching distribution found for dm-control" in capfd.readouterr().err


def test_nothing_is_installed_where_pip_takes_dm_control_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: Path
) -> None:
    declare(monkeypatch, "python_version > '3'")
    assert install_dm_control.main([]) == 0
    assert not (tmp_path / "installed").exists()


def test_an_environment_without_pip_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pip" else find_spec(name))
    with pytest.raises(SystemExit) as stop:
        install_dm_control.main([])
    assert stop.value.code == 2
    assert "must have curl_rl and pip installed, got no pip" in capsys.readouterr().err.splitlines()[-1]


def test_requirements_are_those_of_this_python_and_of_no_extra() -> None:
    lines = [
        "absl-py>=0.7.0",
        "labmaze",
        "early; python_version < '3'",
        "late; python_version > '3'",
        'h5py; extra == "x"',
    ]
    assert install_dm_control.without_labmaze(lines) == ["absl-py>=0.7.0", 'late; python_version > "3"']


def test_ranges_are_those_of_the_package() -> None:
    assert importlib.metadata.version("dm-control") in install_dm_control.declared("dm-control").specifier
    assert importlib.metadata.version("mujoco") in install_dm_control.declared("mujoco").specifier
