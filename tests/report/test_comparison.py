"""Which runs are compared, and at how many frames."""

from __future__ import annotations

import numpy as np
import pytest

from curl_rl.report.comparison import compare, improvement_of, profile_of
from curl_rl.report.curves import Curve


def curve(env: str, label: str, *seeds: dict[int, float]) -> Curve:
    return Curve(env, label, dict(enumerate(seeds)))


CURVES = [
    curve("a", "x", {0: 0.0, 10: 1.0, 20: 5.0}, {0: 0.0, 10: 3.0}),
    curve("a", "y", {0: 0.0, 10: 2.0, 20: 2.0}),
    curve("b", "x", {10: 7.0}),
    curve("b", "y", {10: 6.0, 20: 9.0}),
]


def test_runs_are_compared_at_the_last_frames_that_all_have() -> None:
    found = compare(CURVES)
    assert (found.frames, found.tasks) == (10, ["a", "b"])
    assert {label: [values.tolist() for values in tasks] for label, tasks in found.scores.items()} == {
        "x": [[1.0, 3.0], [7.0]],
        "y": [[2.0], [6.0]],
    }
    assert (found.counted("x"), found.counted("y")) == ("1 to 2 seeds, no interval", "1 seed, no interval")


def test_other_frames_may_be_named() -> None:
    assert compare(CURVES[:2], 0).scores["x"][0].tolist() == [0, 0]


def test_frames_that_a_run_lacks_are_refused() -> None:
    line = r"^at must be frames at which every run was evaluated, got 20; a, x has 0, 10, and all have in common 10$"
    with pytest.raises(ValueError, match=line):
        compare(CURVES, 20)
    line = r"^the runs must have an evaluation at the same frames, got x on a at 0, y on a at 5: name fewer of them$"
    with pytest.raises(ValueError, match=line):
        compare([curve("a", "x", {0: 1.0}), curve("a", "y", {5: 1.0})])


def test_other_tasks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^the tasks must be the same for all kinds of run, and y has no run of b: "):
        compare(CURVES[:3])


def test_estimates_by_hand() -> None:
    found = compare([curve("a", "x", {0: 1.0}, {0: 3.0}), curve("a", "y", {0: 2.0}, {0: 2.5})])
    profile = profile_of(found, "x", np.array([0.0, 2.0, 3.0]))
    assert profile.value.tolist() == [1, 0.5, 0]
    assert profile.interval is not None
    assert [end.tolist() for end in profile.interval] == [[1, 0, 0], [1, 1, 0]]
    improvement = improvement_of(found, "x", "y")
    assert float(improvement.value) == 0.5
    assert improvement.interval == (0, 1)


def test_one_seed_of_one_task_gives_no_interval() -> None:
    found = compare(CURVES)
    assert profile_of(found, "x", np.array([0.0])).interval is None
    assert improvement_of(found, "x", "y").interval is None
