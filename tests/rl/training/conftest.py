"""A run that was left alone: what every other is compared with."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.corridor import tiny, trained


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tiny(tmp_path_factory.mktemp("undisturbed") / "run"))
