"""Runs a test file's script in this process: ``test_train_agent.py`` tests ``scripts/train_agent.py``."""

from __future__ import annotations

import importlib.util
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def script(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script named by the test's file, imported as a new module for each test."""
    name = request.path.stem.removeprefix("test_")
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def command(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs the script with these arguments, like ``python scripts/<name>.py``; returns its exit code."""
    path = SCRIPTS / f"{request.path.stem.removeprefix('test_')}.py"

    def run(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", [path.name, *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(path), run_name="__main__")
        return int(str(ended.value.code))

    return run
