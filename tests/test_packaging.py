"""The requirements in setup.cfg, the public names, and the Makefile's conditions for repeating the setup."""

from __future__ import annotations

import ast
import configparser
import importlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import curl_rl

ROOT = Path(__file__).resolve().parent.parent


def declared(section: str, option: str) -> list[Requirement]:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    lines = (line.strip() for line in settings[section][option].splitlines())
    return [Requirement(line) for line in lines if line]


NEEDED = declared("options", "install_requires")


# ---- what is declared


@pytest.mark.parametrize("requirement", NEEDED, ids=lambda requirement: requirement.name)
def test_installed_version_lies_in_the_declared_range(requirement: Requirement) -> None:
    version = importlib.metadata.version(requirement.name)
    assert requirement.specifier.contains(version), f"{requirement.name} {version} is outside {requirement.specifier}"


def test_dm_control_and_mujoco_are_capped_as_a_pair() -> None:
    ranges = {requirement.name: requirement for requirement in NEEDED}
    assert not ranges["mujoco"].specifier.contains("4.0.0")  # dm-control 1.0.50 fails on import with it
    assert not ranges["dm-control"].specifier.contains("1.0.47")  # fails with mujoco 3.17


def test_uv_installs_dm_control_where_pip_leaves_it_out() -> None:
    tables = pytest.importorskip("tomllib").loads((ROOT / "pyproject.toml").read_text())
    ranges = {requirement.name: requirement for requirement in NEEDED}
    group = {requirement.name: requirement for requirement in map(Requirement, tables["dependency-groups"]["dev"])}
    (override,) = map(Requirement, tables["tool"]["uv"]["override-dependencies"])
    assert group["curl_rl"].extras == {"vision", "mujoco", "test"}
    assert group["dm-control"].specifier == ranges["dm-control"].specifier
    assert (override.name, str(override.specifier)) == ("labmaze", "")
    for minor in range(10, 16):
        version = {"python_version": f"3.{minor}"}
        by_pip, by_uv, maze = (
            requirement.marker is not None and requirement.marker.evaluate(version)
            for requirement in (ranges["dm-control"], group["dm-control"], override)
        )
        assert by_uv != by_pip  # so that uv always installs it
        assert maze == by_pip


def top_level_imports(path: Path) -> Iterator[str]:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module.split(".")[0]


def test_whatever_is_imported_without_condition_is_declared() -> None:
    distributions = importlib.metadata.packages_distributions()
    wanted = {canonicalize_name(requirement.name) for requirement in NEEDED}
    # An integration is imported only by users who have its library.
    optional = ROOT / "curl_rl" / "integrations"
    paths = [path for folder in ("curl_rl", "envs", "scripts", "examples") for path in (ROOT / folder).rglob("*.py")]
    for path in paths:
        if optional in path.parents:
            continue
        for module in set(top_level_imports(path)) - sys.stdlib_module_names - {"curl_rl", "envs", "benchmarks"}:
            providers = {canonicalize_name(name) for name in distributions.get(module, ["nothing that is installed"])}
            assert providers & wanted, f"{path} imports {module}, of {providers}: not in install_requires"


# ---- what is shipped and found


@pytest.mark.parametrize("package", ["curl_rl", "envs"])
def test_installed_clone_is_found_from_anywhere(package: str, tmp_path: Path) -> None:
    code = f"import importlib.util; print(importlib.util.find_spec({package!r}).origin)"
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert Path(found.stdout.strip()) == ROOT / package / "__init__.py"


# ---- the public names

PLACES = {"PixelEncoder": "curl_rl.encoders", "load_agent": "curl_rl.rl.loading", "train": "curl_rl.rl.training"}


def test_public_names_are_there_and_listed() -> None:
    assert curl_rl.__all__ == sorted(set(curl_rl.__all__))
    assert {"PixelEncoder", "ResNet", "AuxiliaryLoss", "load_encoder", *PLACES} <= set(curl_rl.__all__)
    assert set(curl_rl.__all__) <= set(dir(curl_rl))
    for name in curl_rl.__all__:
        assert getattr(curl_rl, name).__name__ == name
    for name, module in PLACES.items():
        assert getattr(curl_rl, name) is getattr(importlib.import_module(module), name)
    with pytest.raises(AttributeError, match="module 'curl_rl' has no attribute 'trian'"):
        curl_rl.trian  # type: ignore[attr-defined]  # noqa: B018


def test_names_are_imported_on_first_use(tmp_path: Path) -> None:
    code = (
        "import sys, curl_rl\n"
        f"assert set(curl_rl.__all__) <= set(dir(curl_rl)) and not {set(PLACES.values())} & set(sys.modules)\n"
        "assert not {'torch', 'numpy', 'gymnasium', 'tensorboard', 'jsonargparse'} & set(sys.modules)\n"
        "from curl_rl import PixelEncoder, load_agent, train\n"
        f"assert {set(PLACES.values())} <= set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-W", "error::DeprecationWarning", "-c", code], check=True, cwd=tmp_path)


# ---- the forms for problems and wishes


@pytest.mark.parametrize("form", ["problem", "wish"])
def test_the_fields_of_a_form_have_no_stray_keys(form: str) -> None:
    # An unquoted comma in a label begins another key, and the form is not offered.
    content = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / f"{form}.yml").read_text())
    assert content.keys() == {"name", "description", "body"}
    for field in content["body"]:
        assert field["type"] in {"input", "textarea"}
        assert {"label"} <= field["attributes"].keys() <= {"label", "description", "render"}
        assert all(isinstance(text, str) for text in field["attributes"].values())


# ---- the Makefile

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with the Makefile, and stamps that mark everything in it as set up."""
    for name in ("Makefile", "setup.cfg", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "place").write_text(str(tmp_path))
    (tmp_path / ".venv" / "torch").write_text("torch==2.13.0")
    for name in ("created", "setup", "test", "opengl"):
        (tmp_path / ".venv" / name).touch()
    return tmp_path


def make(folder: Path, *arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    # Without the variables that an outer make, which may be running these tests, passes to inner ones.
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "TORCH")}
    if path is not None:
        environment["PATH"] = f"{path}:{environment['PATH']}"
    return subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True, env=environment)


def program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


@needs_make
def test_finished_setup_is_not_repeated(clone: Path) -> None:
    assert "pip" not in make(clone, "-n", "setup-test").stdout
    assert "pip" not in make(clone, "-n", "setup-test", "TORCH=torch==2.13.0").stdout


@needs_make
def test_setup_is_repeated_for_what_has_changed(clone: Path) -> None:
    assert "'torch==2.8.0'" in make(clone, "-n", "setup", "TORCH=torch==2.8.0").stdout

    (clone / ".venv" / "torch").write_text("torch==2.8.0")
    os.utime(clone / "setup.cfg", (2**31, 2**31))
    assert "'torch==2.8.0'" in make(clone, "-n", "setup").stdout  # the torch that was chosen, not the default

    os.utime(clone / "setup.cfg", (0, 0))
    (clone / ".venv" / "place").write_text("/somewhere/else")
    assert "pip" in make(clone, "-n", "setup").stdout


@needs_make
def test_setup_leaves_dm_control_to_its_script_only_after_pip(clone: Path) -> None:
    (clone / ".venv" / "setup").unlink()
    commands = make(clone, "-n", "setup").stdout
    assert commands.index("--editable '.[vision,mujoco,plot]'") < commands.index(
        ".venv/bin/python scripts/install_dm_control.py"
    )


@needs_make
def test_train_passes_its_variables_on(clone: Path) -> None:
    assert "train_agent.py --env cheetah-run --preset cpu" in make(clone, "-n", "train").stdout
    chosen = make(clone, "-n", "train", "ENV=walker-walk", "PRESET=curl", "ARGS=--seed 2").stdout
    assert "train_agent.py --env walker-walk --preset curl --seed 2" in chosen


@needs_make
def test_newest_releases_have_an_environment_of_their_own(clone: Path) -> None:
    commands = make(clone, "-n", "test-newest").stdout
    assert ".venv/bin/python -m pip" not in commands
    assert "pip install --quiet --upgrade torch " in commands
    assert (
        "pip install --quiet --upgrade 'torch==2.8.0' " in make(clone, "-n", "test-newest", "TORCH=torch==2.8.0").stdout
    )


@needs_make
@pytest.mark.parametrize(("gpu", "torch"), [("exit 9", '"torch==2.13.0"'), ("echo GPU 0: H200", '"torch>=2.8,<3"')])
def test_torch_is_chosen_by_the_gpu(clone: Path, gpu: str, torch: str) -> None:
    (clone / ".venv" / "torch").unlink()
    program(clone, "nvidia-smi", gpu)
    assert torch in make(clone, "help", path=clone).stdout


@needs_make
def test_first_python_that_runs_and_fits_is_taken(clone: Path) -> None:
    for name in ("python3.14", "python3.13", "python3.12", "python3.11", "python3.10", "python3"):
        program(clone, name, "exit 127")  # like a pyenv shim of a version that is not chosen
    program(clone, "python3.10", f'exec {sys.executable} "$@"')
    (clone / ".venv" / "created").unlink()
    assert "python='python3.10'" in make(clone, "-n", "setup", path=clone).stdout
    program(clone, "python3.10", "exit 127")
    program(clone, "python3.13", f'exec {sys.executable} "$@"')
    assert "python='python3.13'" in make(clone, "-n", "setup", path=clone).stdout


@needs_make
@pytest.mark.parametrize("version", ["(3, 9, 2)", "(3, 15, 0)"])
def test_unfit_python_is_refused_in_one_line(clone: Path, version: str) -> None:
    # A Python that reports another version.
    (clone / "sitecustomize.py").write_text(f"import sys\nsys.version_info = {version}\n")
    program(clone, "python", f'PYTHONPATH={clone} exec {sys.executable} "$@"')
    (clone / ".venv" / "created").unlink()
    answer = make(clone, "setup", f"PYTHON={clone}/python")
    assert answer.returncode != 0
    complaint = [line for line in answer.stderr.splitlines() if not line.startswith("make")]
    assert len(complaint) == 1
    assert complaint[0].startswith("Python must be 3.10 to 3.14, found ")


@needs_make
def test_missing_python_is_reported_in_one_line(clone: Path) -> None:
    (clone / ".venv" / "created").unlink()
    answer = make(clone, "setup", "PYTHON=/nonexistent/python")
    complaint = [line for line in answer.stderr.splitlines() if not line.startswith("make")]
    assert len(complaint) == 1
    assert "found none: install one" in complaint[0]
