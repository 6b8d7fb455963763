"""Runs, recordings and exports that are killed, or stopped by their disk, and started again.

The oracle is the undisturbed work: weights, optimizers, random states, replay, rows of metrics, frames, and the bytes
of exported files.
"""

from __future__ import annotations

import pytest

from helpers.faults import work
from helpers.faults.tries import TRIES, assert_no_defect

KINDS = {kind.name: kind for kind in work.kinds()}
QUICK = [
    "a recording, extended, killed at a file operation",
    "a recording, extended, on a failing disk",
    "the export of a policy, killed at a file operation",
]


@pytest.mark.parametrize("name", QUICK)
def test_disturbed_work_ends_as_if_undisturbed(name: str) -> None:
    assert_no_defect(KINDS[name], 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_disturbed_work_ends_as_if_undisturbed_in_many_tries(name: str) -> None:
    assert_no_defect(KINDS[name], TRIES, first=1)
