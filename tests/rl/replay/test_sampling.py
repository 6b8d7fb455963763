"""Samples against a brute-force replay and against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from helpers.brute_force_replay import (
    ACTION_DIM,
    CHANNELS,
    FAR,
    SIZE,
    BruteForceReplay,
    ManyStreams,
    action_of,
    assert_equal_batches,
    feed,
    frame_of,
    make,
    numbers_in,
    play,
    two_episodes,
)


@pytest.mark.parametrize("stack", [1, 2, 3, 4])
@pytest.mark.parametrize(("capacity", "mean_length"), [(1, 3), (2, 1.2), (7, 1.3), (13, 4), (50, 30), (97, 9)])
def test_every_sample_equals_the_brute_force_replays(capacity: int, mean_length: float, stack: int) -> None:
    rng = np.random.default_rng([capacity, stack])
    generator = torch.Generator().manual_seed(stack)
    real, brute = make(capacity, stack), BruteForceReplay(capacity, stack)
    steps = play(rng, stack, mean_length)
    for moment in range(5 * capacity + 40):
        step = next(steps)
        feed(real, step)
        brute.feed(step)
        samplable = brute.samplable()
        assert len(real) == len(samplable)
        if not samplable or moment % 3:
            continue
        n_step, discount = int(rng.integers(1, 6)), float(rng.choice([0.0, 0.5, 0.99, 1.0]))
        future = tuple(int(offset) for offset in rng.integers(0, 12, size=rng.integers(0, 3)))
        batch = real.sample(8, generator, discount=discount, n_step=n_step, future=future)
        assert batch.observation.shape == batch.next_observation.shape == (8, stack * CHANNELS, SIZE, SIZE)
        assert batch.reward.shape == batch.discount.shape == (8, 1)
        assert batch.reward.dtype == batch.discount.dtype == batch.action.dtype == torch.float32
        assert len(batch.future) == len(future)
        assert (batch.actions_ahead is None) is (not future)
        for row, number in enumerate(numbers_in(batch)):
            assert number in samplable
            expected = brute.expected(number, discount, n_step, future)
            np.testing.assert_array_equal(batch.action[row], expected["action"])
            np.testing.assert_array_equal(batch.observation[row], expected["observation"])
            np.testing.assert_array_equal(batch.next_observation[row], expected["next_observation"])
            np.testing.assert_allclose(batch.reward[row, 0], expected["reward"], rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(batch.discount[row, 0], expected["discount"], rtol=1e-5)
            for observation, right in zip(batch.future, expected["future"], strict=True):
                np.testing.assert_array_equal(observation[row], right)
            if batch.actions_ahead is not None:
                assert batch.actions_ahead.shape == (8, max(future), ACTION_DIM)
                np.testing.assert_array_equal(batch.actions_ahead[row], np.reshape(expected["actions_ahead"], (-1, 3)))


def test_sampling_is_uniform_over_exactly_the_samplable_transitions() -> None:
    rng = np.random.default_rng(0)
    real, brute = make(37), BruteForceReplay(37, 3)
    steps = play(rng, 3, 4)
    for _ in range(200):
        step = next(steps)
        feed(real, step)
        brute.feed(step)
    samplable = brute.samplable()
    assert 20 < len(samplable) < 37  # short episodes: the frames run out before the transitions
    batch = real.sample(200 * len(samplable), torch.Generator().manual_seed(0), discount=1.0)
    numbers, counts = np.unique(numbers_in(batch), return_counts=True)
    assert numbers.tolist() == samplable
    assert stats.chisquare(counts).pvalue > 0.001


@pytest.mark.parametrize(
    ("end", "discounts"),
    [("terminated", [0.25, 0.0, 0.0, 0.5]), ("truncated", [0.25, 0.25, 0.5, 0.5])],
)
def test_two_step_returns_by_hand(end: str, discounts: list[float]) -> None:
    batch = two_episodes(end).sample(100, torch.Generator().manual_seed(0), discount=0.5, n_step=2, future=(3,))
    rewards = [1 + 0.5 * 2, 2 + 0.5 * 4, 4.0, 100.0]
    next_frames, third_frames = [2, 3, 3, 5], [3, 3, 3, 5]
    assert set(numbers_in(batch)) == {0, 1, 2, 3}
    for row, number in enumerate(numbers_in(batch)):
        assert batch.reward[row].item() == rewards[number]
        assert batch.discount[row].item() == discounts[number]
        np.testing.assert_array_equal(batch.next_observation[row], frame_of(next_frames[number]))
        np.testing.assert_array_equal(batch.future[0][row], frame_of(third_frames[number]))


@pytest.mark.parametrize("stack", [1, 3, 4])
@pytest.mark.parametrize("capacity", [1, 19, 20, 21, 22, 60, 119])
def test_episodes_of_twenty_steps_leave_the_whole_capacity_samplable(capacity: int, stack: int) -> None:
    replay = make(capacity, stack)
    frame_number = transitions = 0
    for _ in range(3 + 3 * capacity // 20):
        observation = np.tile(frame_of(frame_number), (stack, 1, 1))
        replay.start_episode(observation)
        frame_number += 1
        assert len(replay) == min(transitions, capacity)
        for position in range(20):
            observation = np.concatenate([observation[CHANNELS:], frame_of(frame_number)])
            replay.add(action_of(0), 0.0, observation, terminated=False, truncated=position == 19)
            frame_number += 1
            transitions += 1
            assert len(replay) == min(transitions, capacity)


def test_all_randomness_comes_from_the_generator() -> None:
    replay = two_episodes("terminated")
    global_state = torch.get_rng_state()
    first = replay.sample(50, torch.Generator().manual_seed(3), discount=0.9)
    assert torch.equal(torch.get_rng_state(), global_state)
    assert_equal_batches(first, replay.sample(50, torch.Generator().manual_seed(3), discount=0.9))
    other = replay.sample(50, torch.Generator().manual_seed(4), discount=0.9)
    assert numbers_in(first) != numbers_in(other)


def test_a_sampled_batch_does_not_change_when_its_frames_are_overwritten() -> None:
    replay = make(4)
    steps = play(np.random.default_rng(0), 3, 5)
    for _ in range(10):
        feed(replay, next(steps))
    batch = replay.sample(20, torch.Generator().manual_seed(0), discount=1.0, future=(2,))
    before = [tensor.clone() for tensor in (*batch[:5], *batch.future)]
    for _ in range(30):
        feed(replay, next(steps))
    assert all(torch.equal(a, b) for a, b in zip(before, (*batch[:5], *batch.future), strict=True))


@pytest.mark.parametrize(("streams", "capacity", "mean_length"), [(2, 26, 4), (3, 3, 2), (3, 100, 9), (5, 64, 1.3)])
def test_every_sample_of_several_streams_equals_the_brute_force_replays(
    streams: int, capacity: int, mean_length: float
) -> None:
    rng, generator = np.random.default_rng([capacity, streams]), torch.Generator().manual_seed(0)
    real, many = make(capacity, streams=streams), ManyStreams(streams, capacity, 3, mean_length)
    seen = set()
    for _ in range(2 * capacity + 60):
        many.feed(real, [stream for stream in range(streams) if rng.random() < 0.3 + 0.1 * stream])
        samplable = many.samplable()
        assert len(real) == len(samplable)
        if not samplable:
            continue
        batch = real.sample(8, generator, discount=0.9, n_step=2, future=(3,))
        for row, number in enumerate(numbers_in(batch)):
            assert number in samplable
            seen.add(number // FAR)
            expected = many.expected(number, 0.9, 2, (3,))
            np.testing.assert_array_equal(batch.observation[row], expected["observation"])
            np.testing.assert_array_equal(batch.next_observation[row], expected["next_observation"])
            np.testing.assert_array_equal(batch.future[0][row], expected["future"][0])
            assert batch.actions_ahead is not None
            np.testing.assert_array_equal(batch.actions_ahead[row], expected["actions_ahead"])
            np.testing.assert_allclose(batch.reward[row, 0], expected["reward"], rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(batch.discount[row, 0], expected["discount"], rtol=1e-5)
    assert seen == set(range(streams))


def test_sampling_is_uniform_over_the_transitions_of_streams_that_are_not_equally_full() -> None:
    real, many = make(60, streams=3), ManyStreams(3, 60, 3, 5)
    many.feed(real, [0] * 90 + [2] * 7)  # the middle one holds nothing yet
    samplable = many.samplable()
    batch = real.sample(200 * len(samplable), torch.Generator().manual_seed(0), discount=1.0)
    numbers, counts = np.unique(numbers_in(batch), return_counts=True)
    assert numbers.tolist() == samplable
    assert stats.chisquare(counts).pvalue > 0.001
