"""Fixtures shared by the pretraining tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from curl_rl.objectives.method import Method
from helpers.dummy_objectives import DUMMIES


@pytest.fixture
def dummies(register: Callable[[Method], None]) -> None:
    """The objectives of the tests, by their names in the registry."""
    for method in DUMMIES.values():
        register(method)
