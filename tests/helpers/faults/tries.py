"""Kinds of faults as tests: a few tries with a fixed seed, or as many as asked for."""

from __future__ import annotations

import os

from helpers.faults.attempts import DEFECT, Kind, attempted

TRIES = int(os.environ.get("FAULT_TRIES", "3"))
"""Of each kind in the slow tests."""
SEED = int(os.environ.get("FAULT_SEED", "0"))


def assert_no_defect(kind: Kind, tries: int, first: int = 0) -> dict[str, int]:
    """Counts the outcomes of these tries of a kind."""
    outcomes: dict[str, int] = {}
    for number in range(first, first + tries):
        outcome, detail = attempted(kind, number, SEED)
        assert outcome != DEFECT, f"seed {SEED}, {kind.name}, number {number}: {detail}"
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    return outcomes
