"""An undisturbed run, the reference for all others."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.corridor import tiny, trained


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tiny(tmp_path_factory.mktemp("undisturbed") / "run"))
