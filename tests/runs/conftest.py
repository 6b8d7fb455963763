"""Fixtures shared by the checkpoint tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from curl_rl.runs import checkpoint


@pytest.fixture
def two(tmp_path: Path) -> Path:
    checkpoint.save(tmp_path, 5, {"frames": 5})
    checkpoint.save(tmp_path, 10, {"frames": 10})
    return tmp_path
