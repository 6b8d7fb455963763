"""The message on importing an integration without its library."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest

from curl_rl import beside


class _Absent:
    """A finder, placed before all others, that hides one library."""

    def __init__(self, library: str) -> None:
        self.library = library

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.split(".")[0] == self.library:
            raise ModuleNotFoundError(f"No module named {name!r}", name=self.library)


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
    module = f"curl_rl.integrations.{integration}"
    for name in list(sys.modules):
        if name.split(".")[0] == library or name == module:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_Absent(library), *sys.meta_path])
    how = rf"pip install -e '\.\[{extra}\]' in curl_rl's clone" if clone else rf"pip install 'curl_rl\[{extra}\]'"
    monkeypatch.setattr(beside, "IS_CLONE", clone)
    with pytest.raises(ImportError, match=rf"^{module} needs .*: {how}$") as caught:
        importlib.import_module(module)
    assert caught.value.__suppress_context__, "one line, not two tracebacks"
