"""Fixtures shared by the pretraining tests."""

from __future__ import annotations

import pytest

from curl_rl.objectives import METHODS
from helpers.dummy_objectives import DUMMIES


@pytest.fixture
def dummies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The objectives of the tests, by their names in the registry."""
    for name, method in DUMMIES.items():
        monkeypatch.setitem(METHODS, name, method)
