"""Environments that raise, exit, hang, crash or return nonsense at a random call.

The run stops in one line, and ends as an undisturbed one once the environment is sound.
"""

from __future__ import annotations

import pytest

from helpers.faults import environments
from helpers.faults.tries import TRIES, assert_no_defect

KINDS = {kind.name: kind for kind in environments.kinds()}


def test_a_run_survives_its_environment() -> None:
    assert_no_defect(KINDS["an environment misbehaves in the trainer's process"], 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_a_run_survives_its_environment_in_many_tries(name: str) -> None:
    assert_no_defect(KINDS[name], TRIES, first=2)
