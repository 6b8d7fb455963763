"""The message on importing an integration without its library."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest

import envs
from curl_rl import installation
from curl_rl.commands import train_sb3


class _Absent:
    """A finder, placed before all others, that hides one library."""

    def __init__(self, library: str) -> None:
        self.library = library

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.split(".")[0] == self.library:
            raise ModuleNotFoundError(f"No module named {name!r}", name=self.library)


def hide(library: str, integration: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Makes a library absent for its integration; returns the integration's full name."""
    module = f"curl_rl.integrations.{integration}"
    for name in list(sys.modules):
        if name.split(".")[0] == library or name == module:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_Absent(library), *sys.meta_path])
    return module


@pytest.mark.parametrize(
    ("library", "integration", "extra"),
    [
        ("stable_baselines3", "stable_baselines3", "sb3"),
        ("tensordict", "torchrl", "torchrl"),
        ("onnx", "onnx", "onnx"),
        ("onnxruntime", "onnx", "onnx"),
        ("onnxscript", "onnx", "onnx"),
        ("huggingface_hub", "hub", "hub"),
    ],
)
@pytest.mark.parametrize("clone", [True, False], ids=["clone", "wheel"])
def test_absent_library_is_named_with_its_extra(
    clone: bool, library: str, integration: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = hide(library, integration, monkeypatch)
    how = rf"pip install -e '\.\[{extra}\]' in curl_rl's clone" if clone else rf"pip install 'curl_rl\[{extra}\]'"
    monkeypatch.setattr(installation, "IS_CLONE", clone)
    with pytest.raises(ImportError, match=rf"^{module} needs .*: {how}$") as caught:
        importlib.import_module(module)
    assert caught.value.__suppress_context__, "one line, not two tracebacks"


def test_a_command_that_needs_a_library_names_its_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hide("stable_baselines3", "stable_baselines3", monkeypatch)
    with pytest.raises(SystemExit) as ended:
        train_sb3.main(["--env", "tiny-reach", "--encoder", "curl"], envs.make)
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith("needs Stable-Baselines3: pip install -e '.[sb3]' in curl_rl's clone\n")
