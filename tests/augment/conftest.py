"""torchvision as an oracle, if it is installed."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType

import pytest
import torch


@pytest.fixture(scope="session")
def torchvision() -> ModuleType:
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    try:
        return importlib.import_module("torchvision")
    except RuntimeError:  # its compiled part does not match this torch: two operators are missing, but not needed here
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
    with torch.library._scoped_library("torchvision", "FRAGMENT") as stub:
        stub.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        stub.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return importlib.import_module("torchvision")
