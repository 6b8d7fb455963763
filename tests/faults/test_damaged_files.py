"""Files of runs, policies and recordings that are flipped, cut, grown, replaced, swapped, or hold what runs code.

Whatever reads them refuses in one line, gives what the original would, or says what it does instead.
"""

from __future__ import annotations

import pytest

from helpers.faults import damage
from helpers.faults.attempts import OLDER, REFUSED, SAME, TOLD
from helpers.faults.tries import TRIES, assert_no_defect

KINDS = {kind.name: kind for kind in damage.kinds()}
QUICK = [
    "a policy's file: a file flipped",
    "a policy's file: a file planted",
    "a recording: a file cut",
    "a run of an agent: a file planted",
]


@pytest.mark.parametrize("name", QUICK)
def test_a_harmed_file_is_refused_or_harmless(name: str) -> None:
    assert_no_defect(KINDS[name], 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_a_harmed_file_is_refused_or_harmless_in_many_tries(name: str) -> None:
    outcomes = assert_no_defect(KINDS[name], TRIES, first=2)
    assert outcomes.keys() <= {REFUSED, SAME, OLDER, TOLD}
