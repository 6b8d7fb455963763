"""Spellings of values."""

from __future__ import annotations

from typing import Any

import pytest

from curl_rl.sweep.values import spelled, split


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (None, "null"),
        (100_000, "100000"),
        ("1e5", "100000"),
        ("100_000", "100000"),
        (1e-3, "0.001"),
        ("1e-3", "0.001"),
        ("none", "none"),
        ("-1", "-1"),
        ([2, 1], "[2,1]"),
        ("[2, 1]", "[2,1]"),
        (["position", "velocity"], "[position,velocity]"),
        ("cuda:0", "cuda:0"),
        ("nan", "nan"),
        ("runs/a/seed1", "runs/a/seed1"),
    ],
)
def test_one_spelling_for_each_value(value: Any, text: str) -> None:
    assert spelled(value) == text
    assert spelled(text) == text


def test_commas_in_brackets_do_not_split() -> None:
    assert split("curl,none") == ["curl", "none"]
    assert split("[2],[2,1], [2,[1,3]]") == ["[2]", "[2,1]", "[2,[1,3]]"]
    assert split("") == []
