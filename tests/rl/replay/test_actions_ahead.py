"""The actions on the way to a future observation, worked out by hand.

``test_sampling`` compares them with a brute-force replay over random episodes, as it does everything that is sampled.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from curl_rl.rl.replay import Batch, Replay
from helpers.brute_force_replay import FAR, action_of, frame_of, make, numbers_in, two_episodes

NO_ACTION = None


def sample(replay: Replay, future: tuple[int, ...], *, n_step: int = 1, seed: int = 0) -> Batch:
    return replay.sample(200, torch.Generator().manual_seed(seed), discount=0.9, n_step=n_step, future=future)


def ahead_of_each(batch: Batch) -> dict[int, list[int | None]]:
    """The numbers of the actions ahead, by the number of each sampled transition."""
    assert batch.actions_ahead is not None
    assert batch.actions_ahead.dtype == torch.float32
    found: dict[int, list[int | None]] = {}
    for number, actions in zip(numbers_in(batch), batch.actions_ahead.numpy(), strict=True):
        numbers = [int(action[0]) if action.any() else NO_ACTION for action in actions]
        for one, action in zip(numbers, actions, strict=True):
            if one is not NO_ACTION:
                np.testing.assert_array_equal(action, action_of(one))
        assert found.setdefault(number, numbers) == numbers, "the same transition, the same actions"
    return found


def one_episode(replay: Replay, steps: int, *, first: int = 0, stream: int = 0) -> None:
    """Adds an episode that stays open, with transitions numbered from ``first``; for a stack of 1."""
    replay.start_episode(frame_of(first), stream=stream)
    for number in range(first, first + steps):
        replay.add(action_of(number), 0.0, frame_of(number + 1), terminated=False, truncated=False, stream=stream)


@pytest.mark.parametrize("end", ["terminated", "truncated", "abandoned"])
@pytest.mark.parametrize("n_step", [1, 2, 7])
def test_they_end_with_the_episode_however_it_ends(end: str, n_step: int) -> None:
    """Transitions 0, 1, 2 of one episode, and 3 of the next, which is still open."""
    batch = sample(two_episodes(end), (3,), n_step=n_step)
    none = NO_ACTION
    assert ahead_of_each(batch) == {0: [0, 1, 2], 1: [1, 2, none], 2: [2, none, none], 3: [3, none, none]}


def test_there_are_as_many_as_the_largest_offset_and_the_first_is_the_batchs_own() -> None:
    replay = two_episodes("terminated")
    for future, count in (((2, 4, 1), 4), ((1,), 1), ((0,), 0)):
        batch = sample(replay, future)
        assert batch.actions_ahead is not None
        assert batch.actions_ahead.shape == (200, count, 3)
        assert torch.equal(batch.actions_ahead[:, :1], batch.action[:, None][:, :count])
    assert sample(replay, ()).actions_ahead is None


def test_futures_and_the_actions_on_the_way_leave_the_draws_as_they_are() -> None:
    replay = two_episodes("terminated")
    assert numbers_in(sample(replay, ())) == numbers_in(sample(replay, (5, 2)))


def test_they_end_with_the_stored_transitions_when_the_ring_has_wrapped() -> None:
    """Nine transitions in a ring of four: 5, 6, 7, 8 are left, and 5 follows 8 in the ring."""
    replay = make(4, stack=1)
    one_episode(replay, 9)
    none = NO_ACTION
    expected = {5: [5, 6, 7, 8, none], 6: [6, 7, 8, none, none], 7: [7, 8, none, none, none], 8: [8] + 4 * [none]}
    assert ahead_of_each(sample(replay, (1, 5))) == expected


def test_an_older_episode_that_follows_the_newest_in_the_ring_is_not_read() -> None:
    """A ring of five holds 3, 4 (to their episode's end) and 5, 6, 7 of the next; 3 follows 7 in the ring."""
    replay = make(5, stack=1)
    one_episode(replay, 5)
    replay.start_episode(frame_of(50))
    for number in (5, 6, 7):
        replay.add(action_of(number), 0.0, frame_of(50 + number), terminated=False, truncated=False)
    none = NO_ACTION
    assert ahead_of_each(sample(replay, (3,))) == {
        3: [3, 4, none],
        4: [4, none, none],
        5: [5, 6, 7],
        6: [6, 7, none],
        7: [7, none, none],
    }


def test_they_come_from_their_own_stream() -> None:
    """The streams' rings are adjacent in memory: the second's first transition follows transition 3 of the first."""
    replay = make(8, stack=1, streams=2)
    one_episode(replay, 4)
    one_episode(replay, 2, first=FAR, stream=1)
    none = NO_ACTION
    assert ahead_of_each(sample(replay, (2,))) == {
        0: [0, 1],
        1: [1, 2],
        2: [2, 3],
        3: [3, none],
        FAR: [FAR, FAR + 1],
        FAR + 1: [FAR + 1, none],
    }


def test_transitions_added_before_a_restore_are_not_read(tmp_path: Path) -> None:
    """Its ring still holds 3, 4 and 5, with the numbers that would come next."""
    replay = make(10, stack=1)
    one_episode(replay, 3)
    manifest = replay.save(tmp_path)
    for number in range(3, 6):
        replay.add(action_of(number), 0.0, frame_of(number + 1), terminated=False, truncated=False)
    assert ahead_of_each(sample(replay, (2,)))[2] == [2, 3]
    replay.restore(tmp_path, manifest)
    assert ahead_of_each(sample(replay, (2,))) == {0: [0, 1], 1: [1, 2], 2: [2, NO_ACTION]}


def test_a_batch_keeps_them_when_the_ring_is_written_over() -> None:
    replay = make(4, stack=1)
    one_episode(replay, 4)
    batch = sample(replay, (3,))
    before = ahead_of_each(batch)
    for number in range(4, 8):
        replay.add(action_of(number), 0.0, frame_of(number + 1), terminated=False, truncated=False)
    assert ahead_of_each(batch) == before
