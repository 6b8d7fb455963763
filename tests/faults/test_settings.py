"""Fuzzed files of settings and command lines: refused in one line, or accepted and read back equal."""

from __future__ import annotations

import pytest

from helpers.faults import configurations
from helpers.faults.tries import TRIES, assert_no_defect

KINDS = {kind.name: kind for kind in configurations.kinds()}


@pytest.mark.parametrize("name", [name for name in KINDS if "file" in name])
def test_strange_settings_are_refused_or_kept(name: str) -> None:
    assert_no_defect(KINDS[name], 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_strange_settings_are_refused_or_kept_in_many_tries(name: str) -> None:
    assert_no_defect(KINDS[name], 3 * TRIES, first=1)
