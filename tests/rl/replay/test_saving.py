"""Saving and restoring, also with damaged segments, a full disk or another replay's manifest."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import curl_rl.rl.episode_stream as episode_stream_module
import curl_rl.runs.files as durable_module
from curl_rl.rl.replay import Replay, ReplayConfig, segment_files
from helpers.brute_force_replay import (
    ACTION_DIM,
    ManyStreams,
    Step,
    action_of,
    assert_equal_batches,
    feed,
    make,
    observation_of,
    play,
)


def assert_same_from_here(left: Replay, right: Replay, steps: Iterator[Step], count: int, seed: int) -> None:
    """Feed both the same steps, and draw the same samples from both."""
    generators = [torch.Generator().manual_seed(seed) for _ in range(2)]
    for _ in range(count):
        assert len(left) == len(right)
        if len(left):
            batches = [
                replay.sample(5, generator, discount=0.9, n_step=2, future=(4,))
                for replay, generator in zip((left, right), generators, strict=True)
            ]
            assert_equal_batches(*batches)
        step = next(steps)
        feed(left, step)
        feed(right, step)


@pytest.mark.parametrize("segment_bytes", [2**20, 40])  # 40: five frames to a file
@pytest.mark.parametrize(("capacity", "mean_length", "stack"), [(1, 2, 3), (10, 2, 1), (30, 8, 3), (30, 200, 4)])
def test_a_restored_replay_continues_like_one_that_was_never_saved(
    capacity: int,
    mean_length: float,
    stack: int,
    segment_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(episode_stream_module, "_SEGMENT_BYTES", segment_bytes)
    rng = np.random.default_rng([capacity, stack])
    steps = play(rng, stack, mean_length)
    never_saved, saved = make(capacity, stack), make(capacity, stack)
    for round_ in range(25):
        assert_same_from_here(never_saved, saved, steps, int(rng.integers(0, max(4, capacity))), round_)
        if rng.random() < 0.2:
            continue
        manifest = json.loads(json.dumps(saved.save(tmp_path)))
        kept = segment_files(manifest)
        for path in tmp_path.iterdir():
            if path.name not in kept:
                path.unlink()
        if rng.random() < 0.7:
            saved = make(capacity, stack)
            saved.restore(tmp_path, manifest)
    assert_same_from_here(never_saved, saved, steps, 3 * capacity, 99)


@pytest.mark.parametrize("moment", range(6))
def test_the_first_moments_can_be_saved(moment: int, tmp_path: Path) -> None:
    """No episode yet, one reset, two resets without a step in between, and the first steps."""
    saved, restored = make(4), make(4)
    restored._frames.fill_(77)  # so that unrestored frames cannot look right by chance
    steps = iter([next(play(np.random.default_rng(0), 3, 5)), *itertools.islice(steps_of_one_episode(3), 20)])
    for _ in range(moment):
        feed(saved, next(steps))
    restored.restore(tmp_path, saved.save(tmp_path))
    assert_same_from_here(saved, restored, steps, 15, 0)


def steps_of_one_episode(stack: int) -> Iterator[Step]:
    numbers = [0] * stack
    yield Step(None, 0.0, observation_of(*numbers), False, False)
    for number in itertools.count(1):
        numbers = [*numbers[1:], number]
        yield Step(action_of(number), 1.0, observation_of(*numbers), False, False)


def test_an_older_manifest_restores_after_newer_segments_were_written(tmp_path: Path) -> None:
    def played(count: int) -> tuple[Replay, Iterator[Step]]:
        replay, steps = make(40), play(np.random.default_rng(7), 3, 6)
        for _ in range(count):
            feed(replay, next(steps))
        return replay, steps

    replay, steps = played(50)
    replay.save(tmp_path)
    for _ in range(13):
        feed(replay, next(steps))
    older = replay.save(tmp_path)
    for _ in range(17):
        feed(replay, next(steps))
    newer = replay.save(tmp_path)
    assert set(segment_files(newer)) - set(segment_files(older))

    never_saved, steps = played(63)
    restored = make(40)
    restored.restore(tmp_path, older)
    assert_same_from_here(never_saved, restored, steps, 17, 0)
    # It now overwrites the newer file of the same name, with the same contents.
    assert restored.save(tmp_path) == newer
    again = make(40)
    again.restore(tmp_path, newer)
    assert_same_from_here(never_saved, again, steps, 100, 1)


def test_a_save_writes_new_data_and_drops_dead_data(tmp_path: Path) -> None:
    replay = make(100)
    steps = play(np.random.default_rng(3), 3, 50)
    written: dict[str, int] = {}
    for round_ in range(40):
        for _ in range(10):
            feed(replay, next(steps))
        before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
        manifest = replay.save(tmp_path)
        after = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
        assert before.items() <= after.items()
        (new,) = after.keys() - before.keys()
        assert new == f"segment-{10 * round_:010d}-{10 * round_ + 9:010d}.safetensors"
        written[new] = (tmp_path / new).stat().st_size
        # Ten frames a file, 100 transitions over at most 109 frames (a few episodes' ends and stacks added).
        assert segment_files(manifest) == list(written)[-len(manifest["streams"][0]["segments"]) :]
        assert (
            len(manifest["streams"][0]["segments"]) == round_ + 1
            if round_ < 10
            else 11 <= len(manifest["streams"][0]["segments"]) <= 12
        )
        assert replay.save(tmp_path) == manifest  # nothing new: nothing written
    assert max(written.values()) < 10 * 8 + 10 * (4 * ACTION_DIM + 4 + 1 + 16) + 1000


def test_a_deleted_segment_is_written_again(tmp_path: Path) -> None:
    replay, restored = make(20), make(20)
    steps = play(np.random.default_rng(3), 3, 5)
    for _ in range(2):
        for _ in range(10):
            feed(replay, next(steps))
        manifest = replay.save(tmp_path)
    (tmp_path / segment_files(manifest)[0]).unlink()
    restored.restore(tmp_path, replay.save(tmp_path))
    assert_same_from_here(replay, restored, steps, 10, 0)


def test_another_directory_gets_everything(tmp_path: Path) -> None:
    replay, restored = make(20), make(20)
    steps = play(np.random.default_rng(3), 3, 5)
    for _ in range(15):
        feed(replay, next(steps))
    for name in segment_files(replay.save(tmp_path / "a")):
        (tmp_path / "b").mkdir(exist_ok=True)
        (tmp_path / "b" / name).write_bytes(b"another run's file of the same name")
    restored.restore(tmp_path / "b", replay.save(tmp_path / "b"))
    assert_same_from_here(replay, restored, steps, 10, 0)


def test_a_full_disk_harms_nothing_saved_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    replay, twin = make(20), make(20)
    steps = play(np.random.default_rng(3), 3, 5)
    for _ in range(15):
        step = next(steps)
        feed(replay, step)
        feed(twin, step)
    older = replay.save(tmp_path)
    restored = make(20)
    restored.restore(tmp_path, older)
    for _ in range(6):
        step = next(steps)
        feed(replay, step)
        feed(twin, step)

    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(durable_module.os, "fsync", refuse)
        with pytest.raises(OSError, match="No space left"):
            replay.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(segment_files(older))
    restored.restore(tmp_path, older)
    assert len(restored) > 0
    restored.restore(tmp_path, replay.save(tmp_path))
    assert_same_from_here(twin, restored, steps, 50, 0)


def test_damage_is_named_and_an_older_manifest_still_restores(tmp_path: Path) -> None:
    replay = make(40)
    steps = play(np.random.default_rng(3), 3, 5)
    for _ in range(20):
        feed(replay, next(steps))
    older = replay.save(tmp_path)
    for _ in range(10):
        feed(replay, next(steps))
    newer = replay.save(tmp_path)
    path = tmp_path / segment_files(newer)[-1]
    whole = path.read_bytes()
    damaged = make(40)
    flipped = bytearray(whole)
    flipped[-3] ^= 4
    for contents in (whole[:-1], whole[:20], b"", bytes(flipped)):
        path.write_bytes(contents)
        damaged.restore(tmp_path, older)
        with pytest.raises(ValueError, match=rf"{path.name} is damaged") as error:
            damaged.restore(tmp_path, newer)
        assert "\n" not in str(error.value)
        assert len(damaged) == 0
    path.unlink()
    with pytest.raises(OSError, match=path.name):
        damaged.restore(tmp_path, newer)
    damaged.restore(tmp_path, older)
    fresh = make(40)
    fresh.restore(tmp_path, older)
    assert len(fresh) > 0
    assert_same_from_here(fresh, damaged, play(np.random.default_rng(11), 3, 5), 60, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"capacity": 11}, "capacity must be the checkpoint's, 10, got 11"),
        ({"stack": 1}, "stack must be the checkpoint's, 3, got 1"),
        ({"action_dim": 1}, "action_dim must be the checkpoint's, 3, got 1"),
        ({"shape": (6, 2, 4)}, r"observation_shape must be the checkpoint's, \[6, 2, 2\], got \[6, 2, 4\]"),
    ],
)
def test_another_replays_manifest_is_refused_by_name(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    manifest = make(10).save(tmp_path)
    settings = {"capacity": 10, "stack": 3, "action_dim": 3, "shape": (6, 2, 2), **arguments}
    replay = Replay(
        ReplayConfig(settings["capacity"], "memory"),
        settings["shape"],
        settings["action_dim"],
        stack=settings["stack"],
        device="cpu",
    )
    with pytest.raises(ValueError, match=message):
        replay.restore(tmp_path, manifest)
    with pytest.raises(ValueError, match="manifest's format must be 1 or 2, got 3"):
        make(10).restore(tmp_path, {**manifest, "format": 3})
    with pytest.raises(ValueError, match="replay must have as many streams as the checkpoint, 1, got 2"):
        make(10, streams=2).restore(tmp_path, manifest)


def test_several_streams_are_saved_and_restored(tmp_path: Path) -> None:
    real, many = make(40, streams=2), ManyStreams(2, 40, 3, 6)
    restored = real
    for round_ in range(6):
        many.feed(real, [0, 1, 1] * 9)
        manifest = json.loads(json.dumps(real.save(tmp_path)))
        assert set(segment_files(manifest)) <= {path.name for path in tmp_path.iterdir()}
        restored = make(40, streams=2)
        restored._frames.fill_(77)
        restored.restore(tmp_path, manifest)
        batches = [
            replay.sample(50, torch.Generator().manual_seed(round_), discount=0.9, n_step=3, future=(2,))
            for replay in (real, restored)
        ]
        assert_equal_batches(*batches)
        real = restored  # the streams continue where they were


def test_a_manifest_of_format_1_is_read(tmp_path: Path) -> None:
    """Format 1 has the only stream's entries in the manifest itself."""
    saved, restored, steps = make(10), make(10), play(np.random.default_rng(3), 3, 5)
    for _ in range(25):
        feed(saved, next(steps))
    manifest = saved.save(tmp_path)
    (stream,) = manifest.pop("streams")
    older = {**manifest, **stream, "format": 1}
    assert segment_files(older) == [segment["file"] for segment in stream["segments"]]
    restored.restore(tmp_path, older)
    assert_same_from_here(saved, restored, steps, 20, 0)
