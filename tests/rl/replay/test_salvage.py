"""A replay without its damaged segments: what is left is exactly what was stored, and nothing is made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import curl_rl.rl.episode_stream as episode_stream_module
from curl_rl.rl.replay import Replay, segment_files
from helpers.brute_force_replay import feed, make, observation_of, play

STACK, DISCOUNT, N_STEP = 3, 0.5, 3


class Stored(NamedTuple):
    """A transition as it was stored, with the numbers of its frames."""

    stack: tuple[int, ...]
    after: int
    reward: float
    terminated: bool


def filled(directory: Path, capacity: int = 60) -> tuple[Replay, dict[str, Any], list[Stored]]:
    """A replay after several saves, its manifest, and every transition by number."""
    replay, steps = make(capacity, STACK), play(np.random.default_rng(3), STACK, 9)
    stored: list[Stored] = []
    frame, stack = -1, (0,) * STACK
    for moment in range(130):
        step = next(steps)
        feed(replay, step)
        frame += 1
        if step.action is None:
            stack = (frame,) * STACK
        else:
            stored.append(Stored(stack, frame, step.reward, step.terminated))
            stack = (*stack[1:], frame)
        if moment % 26 == 25:
            manifest = replay.save(directory)
    return replay, manifest, stored


def survivors(stored: list[Stored], manifest: dict[str, Any], damaged: list[dict[str, Any]]) -> set[int]:
    gone = {number for one in damaged for number in range(one["first_frame"], one["end_frame"])}
    unknown = {number for one in damaged for number in range(one["first_transition"], one["end_transition"])}
    (stream,) = manifest["streams"]
    numbers = range(stream["oldest"], stream["transition_count"])
    return {k for k in numbers if k not in unknown and not gone & {*stored[k].stack, stored[k].after}}


def samples(replay: Replay) -> dict[int, tuple[Any, ...]]:
    """Each transition that can be drawn, by its number."""
    found = {}
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        batch = replay.sample(50, generator, discount=DISCOUNT, n_step=N_STEP)
        for action, *rest in zip(
            batch.action, batch.observation, batch.reward, batch.next_observation, batch.discount, strict=True
        ):
            found[int(action[0])] = tuple(rest)
    return found


def assert_as_stored(replay: Replay, stored: list[Stored], kept: set[int]) -> None:
    found = samples(replay)
    assert found.keys() == kept
    assert len(replay) == len(kept)
    for number, (observation, reward, after, discount) in found.items():
        steps = [number]
        while len(steps) < N_STEP and not stored[steps[-1]].terminated:
            following = steps[-1] + 1
            if following not in kept or stored[following].stack[-1] != stored[steps[-1]].after:
                break
            steps.append(following)
        last = stored[steps[-1]]
        assert np.array_equal(observation.numpy(), observation_of(*stored[number].stack))
        assert reward.item() == pytest.approx(
            sum(DISCOUNT**i * stored[k].reward for i, k in enumerate(steps)), abs=1e-6
        )
        assert discount.item() == (0 if last.terminated else DISCOUNT ** len(steps))
        assert np.array_equal(after.numpy()[-2:], observation_of(last.after))


@pytest.mark.parametrize("how", ["flipped", "missing", "cut short"])
@pytest.mark.parametrize("which", [(0,), (2,), (-1,), (1, 4), (0, -1)])
def test_the_whole_part_of_a_damaged_replay_is_sampled_as_it_was_stored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, which: tuple[int, ...], how: str
) -> None:
    monkeypatch.setattr(episode_stream_module, "_SEGMENT_BYTES", 64)  # eight frames to a file
    replay, manifest, stored = filled(tmp_path)
    segments = manifest["streams"][0]["segments"]
    assert len(segments) > 6
    damaged = [segments[number] for number in which]
    for one in damaged:
        path = tmp_path / one["file"]
        content = path.read_bytes()
        path.write_bytes(content[:-9] + bytes([content[-9] ^ 4]) + content[-8:] if how == "flipped" else content[:-9])
        if how == "missing":
            path.unlink()
    with pytest.raises((ValueError, OSError)):
        replay.restore(tmp_path, manifest)

    kept = survivors(stored, manifest, damaged)
    (stream,) = manifest["streams"]
    lost = replay.restore(tmp_path, manifest, salvage=True)
    assert lost == stream["transition_count"] - stream["oldest"] - len(kept) > 0
    assert not replay.has_open_episode()
    assert_as_stored(replay, stored, kept)

    # Saved again, it is whole, and every file of the earlier manifest is as before.
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    again = replay.save(tmp_path)
    assert before.items() <= {path.name: path.read_bytes() for path in tmp_path.iterdir()}.items()
    assert not set(segment_files(again)) & before.keys()
    other = make(60, STACK)
    assert other.restore(tmp_path, again) == 0
    assert_as_stored(other, stored, kept)


def test_a_salvaged_replay_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(episode_stream_module, "_SEGMENT_BYTES", 64)
    replay, manifest, stored = filled(tmp_path, capacity=200)  # with room for what follows
    damaged = manifest["streams"][0]["segments"][3]
    (tmp_path / damaged["file"]).unlink()
    replay.restore(tmp_path, manifest, salvage=True)
    kept = survivors(stored, manifest, [damaged])
    replay.start_episode(observation_of(500, 500, 500))
    for number in range(1000, 1004):
        replay.add([number, 0, 0], 1.0, observation_of(*[max(500, number - 499 - back) for back in (2, 1, 0)]),
                   terminated=False, truncated=False)  # fmt: skip
    found = samples(replay)
    assert found.keys() == kept | set(range(1000, 1004))
    assert found[1000][1].item() == 1 + DISCOUNT + DISCOUNT**2


def test_nothing_whole_leaves_an_empty_replay(tmp_path: Path) -> None:
    replay, manifest, _ = filled(tmp_path)
    for name in segment_files(manifest):
        (tmp_path / name).unlink()
    (stream,) = manifest["streams"]
    assert replay.restore(tmp_path, manifest, salvage=True) == stream["transition_count"] - stream["oldest"]
    assert len(replay) == 0


def test_a_segment_is_a_file_of_its_folder_and_of_a_segments_size(tmp_path: Path) -> None:
    replay, manifest, _ = filled(tmp_path / "segments")
    segment = manifest["streams"][0]["segments"][0]
    with open(tmp_path / "segments" / segment["file"], "wb") as file:
        file.truncate(6 * 2**30)  # zeros that take no space, and would fill the memory
    with pytest.raises(ValueError, match="has more than"):
        replay.restore(tmp_path / "segments", manifest)
    segment["file"] = "../outside"
    with pytest.raises(ValueError, match="must be a name of a file"):
        replay.restore(tmp_path / "segments", manifest)
