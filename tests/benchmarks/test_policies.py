"""The suite measures each policy on small and large images; what it measures is not tested."""

from __future__ import annotations

import pytest
import torch

from benchmarks import policies


def test_each_policy_is_a_row_for_each_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "_LARGE", 40)
    monkeypatch.setattr(policies, "import_torchvision", lambda: None)
    rows = policies.measure(torch.device("cpu"), 16, rounds=1)
    sizes = ("16 images of 32×32", "2 images of 40×40")
    expected = [f"{policy}, {images}" for images in sizes for policy in ("RandAugment", "AutoAugment")]
    assert [row.name for row in rows] == expected
    for row in rows:
        assert row.ours_ms is not None
        assert row.note.endswith("copies")
