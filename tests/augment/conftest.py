"""torchvision as an oracle, if it is installed."""

from __future__ import annotations

from types import ModuleType

import pytest

from benchmarks.policies import import_torchvision


@pytest.fixture(scope="session")
def torchvision() -> ModuleType:
    if (module := import_torchvision()) is None:
        pytest.skip("torchvision is not installed")
    return module
