"""The programs of docs/acting.md run in order, on a run of some steps."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from helpers.pages import blocks, run
from helpers.tiny_reach import train_on_tiny_reach

# The sizes that the page names, of the preset as it is.
SIZES = "--environment.size 32 --agent.crop 28"


def test_the_page_acts_alike_in_both_environments_and_by_every_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train_on_tiny_reach(Path("runs/tiny-reach/cpu/seed1"), f"{SIZES} --frames 30")
    namespace: dict[str, Any] = {"__name__": "docs"}
    totals = []
    for block in blocks("acting.md"):
        if "onnxruntime" in block and importlib.util.find_spec("onnxruntime") is None:
            continue
        run(block, "acting.md", namespace)
        if "total" in block:
            totals.append(namespace["total"])
    # The deque of the page's own environment stacks frames as envs.make does, so the episodes are the same.
    assert totals == [pytest.approx(totals[0], abs=1e-3)] * 2
    assert namespace["policy"].observation_shape == (9, 32, 32)
    about = namespace["policy"].provenance
    assert about["run"] == "tiny-reach/cpu/seed1"
