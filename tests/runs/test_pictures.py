"""The warning about pictures that show nothing."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pytest

from curl_rl.runs.pictures import PictureWatch


def shade(value: int) -> npt.NDArray[np.uint8]:
    return np.full((3, 4, 4), value, np.uint8)


def warnings_about(*episodes: Iterable[int], ends: bool = True) -> list[str]:
    """The warnings after each picture of these episodes has had one shade; the last one may not end."""
    said: list[str] = []
    watch = PictureWatch(said.append)
    for number, shades in enumerate(episodes):
        first, *later = shades
        watch.begin(shade(first))
        for step, value in enumerate(later, 1):
            watch.step(shade(value), over=step == len(later) and (ends or number + 1 < len(episodes)))
    return said


def test_pictures_that_change_and_are_bright_are_no_matter() -> None:
    assert warnings_about(range(0, 200, 5), [200] * 20 + [201], [0, 255] * 10) == []


def test_a_picture_that_never_changes_in_an_episode() -> None:
    assert warnings_about([90] * 21) == [
        "warning: the pictures of 20 agent steps are all the same: does render() draw its state?"
    ]


def test_a_later_episode_counts_as_well() -> None:
    """Some renderers draw only the first episode."""
    assert len(warnings_about(range(100, 130), [90] * 21)) == 1


@pytest.mark.parametrize("shades", [[0] * 30, [0, 1, 2, 3] * 8])
def test_black_pictures(shades: list[int]) -> None:
    assert warnings_about(shades) == [
        f"warning: the pictures of {len(shades) - 1} agent steps are black: does render() draw in the right range?"
    ]


def test_it_warns_once() -> None:
    assert len(warnings_about([90] * 21, [0] * 21, [90] * 21)) == 1


def test_an_episode_without_an_end_is_judged_too() -> None:
    assert warnings_about([90] * 1000, ends=False) == []
    assert len(warnings_about([90] * 1001, ends=False)) == 1
    assert warnings_about([90] * 1000 + [91] * 1000, ends=False) == []


def test_short_episodes_are_judged_together() -> None:
    """In episodes of one step the picture may be the same before and after it, and another one each time."""
    assert warnings_about(*([90, 90] for _ in range(9))) == []
    assert len(warnings_about(*([90, 90] for _ in range(10)))) == 1
    assert warnings_about(*([90 + n, 90 + n] for n in range(40))) == []


def test_environments_are_judged_by_themselves() -> None:
    said: list[str] = []
    watch = PictureWatch(said.append)
    for number in (0, 1):
        watch.begin(shade(90 + number), number=number)
    for step in range(1, 20):
        watch.step(shade(90), over=False, number=0)
        watch.step(shade(90 + step), over=step == 19, number=1)
    assert said == []
    watch.step(shade(90), over=True, number=0)
    assert len(said) == 1


def test_a_run_resumed_in_mid_episode_begins_with_its_first_step() -> None:
    said: list[str] = []
    watch = PictureWatch(said.append)
    for step in range(12):
        watch.step(shade(90), over=step == 11)
    assert len(said) == 1
