"""The replay against a brute-force one that keeps whole stacks in Python lists, and against numbers made by hand."""

from __future__ import annotations

import itertools
import json
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from scipy import stats

import curl_rl.rl.episode_stream as episode_stream_module
import curl_rl.rl.replay as replay_module
import curl_rl.runs.files as durable_module
import curl_rl.runs.storage as storage_module
from curl_rl.rl.replay import Batch, Replay, ReplayConfig, replay_bytes, segment_files

CHANNELS, SIZE, ACTION_DIM = 2, 2, 3


def frame_of(number: int) -> np.ndarray:
    """(C, H, W) uint8: a picture that differs from every other number's."""
    pixels = np.frombuffer(int(number * 2_654_435_761 % 2**64).to_bytes(8, "little"), dtype=np.uint8)
    return pixels.reshape(CHANNELS, SIZE, SIZE)


def action_of(number: int) -> np.ndarray:
    return np.array([number, -number, 0.5], dtype=np.float32)


class Step(NamedTuple):
    """What an environment says on one agent step; ``action`` None stands for reset()."""

    action: np.ndarray | None
    reward: float
    observation: np.ndarray
    terminated: bool
    truncated: bool


def play(rng: np.random.Generator, stack: int, mean_length: float, first: int = 0) -> Iterator[Step]:
    """Episodes of random lengths without end, in one reused buffer as some environments do it."""
    frame_number = transition_number = first
    buffer = np.zeros((stack * CHANNELS, SIZE, SIZE), dtype=np.uint8)
    while True:
        buffer[:] = np.tile(frame_of(frame_number), (stack, 1, 1))
        frame_number += 1
        yield Step(None, 0.0, buffer, False, False)
        length = int(rng.geometric(1 / mean_length)) - int(rng.random() < 0.2)  # 0: reset again without a step
        end = rng.choice(["terminated", "truncated", "both", "abandoned"])
        for position in range(length):
            buffer[:-CHANNELS] = buffer[CHANNELS:].copy()
            buffer[-CHANNELS:] = frame_of(frame_number)
            frame_number += 1
            last = position == length - 1
            yield Step(
                action_of(transition_number),
                float(np.float32(rng.normal())),
                buffer,
                last and end in ("terminated", "both"),
                last and end in ("truncated", "both"),
            )
            transition_number += 1


def feed(replay: Replay, step: Step, stream: int = 0) -> None:
    if step.action is None:
        replay.start_episode(step.observation, stream=stream)
    else:
        ends = {"terminated": step.terminated, "truncated": step.truncated}
        replay.add(step.action, step.reward, step.observation, **ends, stream=stream)


@dataclass
class Episode:
    observations: list[np.ndarray] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    terminated: bool = False


class BruteForceReplay:
    """Keeps every episode in full, and computes each sample from its definition."""

    def __init__(self, capacity: int, stack: int) -> None:
        self.episodes: list[Episode] = []
        self.places: list[tuple[int, int]] = []  # of each transition: episode, step
        self.stack = stack
        # What the real one has room for: so many frames, and so many transitions.
        self.frames_kept: deque[bytes] = deque(maxlen=capacity + capacity // 20 + stack + 1)
        self.transitions_kept: deque[int] = deque(maxlen=capacity)

    def feed(self, step: Step) -> None:
        if step.action is None:
            self.episodes.append(Episode())
        else:
            self.transitions_kept.append(len(self.places))
            self.places.append((len(self.episodes) - 1, len(self.episodes[-1].rewards)))
            self.episodes[-1].rewards.append(step.reward)
        self.episodes[-1].terminated = step.terminated
        self.episodes[-1].observations.append(step.observation.copy())
        self.frames_kept.append(step.observation[-CHANNELS:].tobytes())

    def samplable(self) -> list[int]:
        kept = set(self.frames_kept)
        return [number for number in self.transitions_kept if set(self._frames(number)) <= kept]

    def _frames(self, number: int) -> list[bytes]:
        episode, step = self.places[number]
        frames = self.episodes[episode].observations[step].reshape(self.stack, -1)
        return [frame.tobytes() for frame in frames]

    def expected(self, number: int, discount: float, n_step: int, future: tuple[int, ...]) -> dict[str, Any]:
        index, step = self.places[number]
        episode = self.episodes[index]
        length = len(episode.rewards)
        end = min(step + n_step, length)
        reward = sum(discount**i * episode.rewards[step + i] for i in range(end - step))
        ends_the_task = episode.terminated and end == length
        return {
            "observation": episode.observations[step],
            "action": action_of(number),
            "reward": reward,
            "discount": 0.0 if ends_the_task else discount ** (end - step),
            "next_observation": episode.observations[end],
            "future": [episode.observations[min(step + offset, length)] for offset in future],
        }


def make(
    capacity: int, stack: int = 3, storage: Any = "memory", directory: Path | None = None, streams: int = 1
) -> Replay:
    return Replay(
        ReplayConfig(capacity, storage),
        (stack * CHANNELS, SIZE, SIZE),
        ACTION_DIM,
        stack=stack,
        device="cpu",
        directory=directory,
        streams=streams,
    )


def numbers_in(batch: Batch) -> list[int]:
    """The transitions' numbers, which their actions carry."""
    return [int(number) for number in batch.action[:, 0]]


def assert_equal_batches(left: Batch, right: Batch) -> None:
    for a, b in zip((*left[:5], *left.future), (*right[:5], *right.future), strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a.cpu(), b.cpu())


# ---------------------------------------------------------------------- sampling


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


def two_episodes(end: str) -> Replay:
    """Rewards 1, 2, 4 in an episode that ends as said, then 100 in one still open."""
    replay = make(10, stack=1)
    replay.start_episode(frame_of(0))
    for number, reward in enumerate((1.0, 2.0, 4.0)):
        replay.add(
            action_of(number),
            reward,
            frame_of(number + 1),
            terminated=end == "terminated" and number == 2,
            truncated=end == "truncated" and number == 2,
        )
    replay.start_episode(frame_of(4))
    replay.add(action_of(3), 100.0, frame_of(5), terminated=False, truncated=False)
    return replay


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


def test_chance_comes_from_the_generator_alone() -> None:
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


# ------------------------------------------------------------------------ memory


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def paper_sized(storage: Any, directory: Path | None = None) -> Replay:
    return Replay(ReplayConfig(100_000, storage), (9, 100, 100), 6, stack=3, device="cpu", directory=directory)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_the_papers_replay_takes_3_2_gb_when_full_and_next_to_none_when_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_module, "available_memory", lambda: 2**40)
    before = resident_bytes()
    replay = paper_sized("memory")
    # By hand: 100,000 + 5,000 + 3 + 1 frames of 30,000 bytes; 100,000 transitions of 6 actions and a reward in float32,
    # a flag, and three numbers of 8 bytes.
    assert replay.nbytes == 105_004 * 30_000 + 100_000 * (7 * 4 + 1 + 3 * 8)
    assert replay.nbytes <= 3.2e9
    assert replay.describe() == "replay: 100,000 transitions, 3.2 GB in memory"
    replay.start_episode(np.zeros((9, 100, 100), dtype=np.uint8))
    assert resident_bytes() - before < 50e6


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_memory_stays_flat_once_the_replay_is_full() -> None:
    replay = Replay(ReplayConfig(200, "memory"), (9, 64, 64), 1, stack=3, device="cpu")
    generator = torch.Generator().manual_seed(0)
    observation = np.zeros((9, 64, 64), dtype=np.uint8)

    def run(steps: int) -> None:
        for step in range(steps):
            if step % 30 == 0:
                replay.start_episode(observation)
            replay.add([0.0], 0.0, observation, terminated=False, truncated=step % 30 == 29)
            if step % 10 == 0:
                replay.sample(4, generator, discount=1.0)

    run(600)
    before = resident_bytes()
    run(1500)  # 18 MB of new frames
    assert resident_bytes() - before < 5e6


# ----------------------------------------------------------------------- storage


def test_disk_gives_what_memory_gives_and_leaves_nothing_behind(tmp_path: Path) -> None:
    in_memory, on_disk = make(23), make(23, storage="disk", directory=tmp_path)
    assert (in_memory.storage, on_disk.storage) == ("memory", "disk")
    assert on_disk.describe().endswith(f"on disk, in {tmp_path}")
    assert list(tmp_path.iterdir()) == []
    generators = [torch.Generator().manual_seed(5) for _ in range(2)]
    steps = play(np.random.default_rng(1), 3, 6)
    for moment in range(150):
        step = next(steps)
        feed(in_memory, step)
        feed(on_disk, step)
        if moment % 10 == 9:
            batches = [
                replay.sample(9, generator, discount=0.9, n_step=3, future=(2,))
                for replay, generator in zip((in_memory, on_disk), generators, strict=True)
            ]
            assert_equal_batches(*batches)


def test_disk_space_is_reserved_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Path, "unlink", lambda _: None)  # so that the file has a name to be asked by
    replay = Replay(ReplayConfig(500, "disk"), (9, 64, 64), 1, stack=3, device="cpu", directory=tmp_path)
    (path,) = tmp_path.iterdir()
    assert path.stat().st_blocks * 512 >= path.stat().st_size >= 500 * 3 * 64 * 64
    assert replay.storage == "disk"


@pytest.mark.parametrize(
    ("available", "chosen"),
    [(10e9, "memory"), (4.3e9, "memory"), (4.1e9, "disk"), (1e9, "disk")],  # 3.155 GB are 3/4 of 4.21 GB
)
def test_auto_takes_memory_while_a_quarter_stays_free(
    available: float, chosen: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(storage_module, "available_memory", lambda: int(available))
    monkeypatch.setattr(replay_module, "map_unnamed_file", lambda _, size: torch.empty(size, dtype=torch.uint8))
    assert paper_sized("auto", tmp_path).storage == chosen


def test_on_a_cpu_device_means_memory() -> None:
    assert make(5, storage="device").storage == "memory"


def test_no_room_is_said_at_once_with_what_is_needed_and_what_is_free(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(storage_module, "available_memory", lambda: 1_500_000_000)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (2_500_000_000, 80 * 2**30))
    usage = type("usage", (), {"free": 900_000_000})
    monkeypatch.setattr(storage_module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ValueError, match=r'replay\.storage is "memory": .* needs 3\.2 GB and 1\.5 GB of memory'):
        paper_sized("memory")
    for storage in ("disk", "auto"):
        with pytest.raises(ValueError, match=r"needs 3\.2 GB and .* has 900\.0 MB free"):
            paper_sized(storage, tmp_path)
    with pytest.raises(ValueError, match=r"needs 3\.2 GB on disk, and no directory"):
        paper_sized("disk")
    with pytest.raises(ValueError, match=r"needs 3\.0 GB and cuda has 2\.5 GB free"):
        storage_module.choose_storage("device", 3_000_000_000, torch.device("cuda"), None)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("storage", ["device", "memory"])
def test_a_gpu_gets_the_batches_that_a_cpu_gets(storage: Any) -> None:
    on_cpu = make(23)
    on_gpu = Replay(ReplayConfig(23, storage), (6, SIZE, SIZE), ACTION_DIM, stack=3, device="cuda")
    assert on_gpu.storage == storage
    steps = play(np.random.default_rng(1), 3, 6)
    for moment in range(150):
        step = next(steps)
        feed(on_cpu, step)
        feed(on_gpu, step)
        if moment % 10 == 9:  # the same draws for both: a generator on the CPU
            generators = [torch.Generator().manual_seed(moment) for _ in range(2)]
            batches = [
                replay.sample(9, generator, discount=0.9, n_step=3, future=(2,))
                for replay, generator in zip((on_cpu, on_gpu), generators, strict=True)
            ]
            assert batches[1].observation.device.type == batches[1].reward.device.type == "cuda"
            assert_equal_batches(*batches)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("storage", ["device", "memory"])
def test_sampling_for_a_gpu_never_waits_for_it(storage: Any) -> None:
    replay = Replay(ReplayConfig(23, storage), (6, SIZE, SIZE), ACTION_DIM, stack=3, device="cuda")
    steps = play(np.random.default_rng(1), 3, 6)
    for _ in range(60):
        feed(replay, next(steps))
    generator = torch.Generator(replay.storage_device).manual_seed(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        replay.sample(9, generator, discount=0.9, n_step=3, future=(2,))
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(("streams", "stack", "actions"), [(1, 3, 6), (3, 2, 1)])
def test_the_room_that_is_asked_for_is_what_the_tensors_take(streams: int, stack: int, actions: int) -> None:
    shape = (3 * stack, 8, 9)
    replay = Replay(ReplayConfig(61, "memory"), shape, actions, stack=stack, device="cpu", streams=streams)
    names = ("_frames", "_action", "_reward", "_terminated", "_start_frame", "_position")
    taken = sum(getattr(replay, name).nbytes for name in names)
    assert replay_bytes(61, shape, actions, stack=stack, streams=streams) == taken


# ----------------------------------------------------------------- checkpointing


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
def test_a_restored_replay_goes_on_as_the_one_that_was_never_saved(
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
    """No episode yet, one reset, two resets without a step between them, and the first steps."""
    saved, restored = make(4), make(4)
    restored._frames.fill_(77)  # what is not restored must not look right by chance
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
    # It now writes a file of the same name as the newer one's: over it, with the same contents.
    assert restored.save(tmp_path) == newer
    again = make(40)
    again.restore(tmp_path, newer)
    assert_same_from_here(never_saved, again, steps, 100, 1)


def test_a_save_writes_what_is_new_and_drops_what_is_dead(tmp_path: Path) -> None:
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
        ({"capacity": 11}, "capacity is 11, but the checkpoint's is 10"),
        ({"stack": 1}, "stack is 1, but the checkpoint's is 3"),
        ({"action_dim": 1}, "action_dim is 1, but the checkpoint's is 3"),
        ({"shape": (6, 2, 4)}, r"observation_shape is \[6, 2, 4\], but the checkpoint's is \[6, 2, 2\]"),
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
    with pytest.raises(ValueError, match="manifest has format 3: this version reads 1 and 2"):
        make(10).restore(tmp_path, {**manifest, "format": 3})
    with pytest.raises(ValueError, match="replay has 2 streams, but the checkpoint's has 1"):
        make(10, streams=2).restore(tmp_path, manifest)


# --------------------------------------------------------------- several streams

FAR = 10_000  # between the numbers of two streams' frames and transitions


class ManyStreams:
    """Environments that play at the same time, and a brute-force replay for each."""

    def __init__(self, count: int, capacity: int, stack: int, mean_length: float) -> None:
        self.plays = [
            play(np.random.default_rng([stream, stack]), stack, mean_length, FAR * stream) for stream in range(count)
        ]
        self.brutes = [BruteForceReplay(capacity // count, stack) for _ in range(count)]

    def feed(self, real: Replay, streams: Iterator[int] | list[int]) -> None:
        for stream in streams:
            step = next(self.plays[stream])
            feed(real, step, stream)
            self.brutes[stream].feed(step)

    def samplable(self) -> list[int]:
        return [FAR * stream + number for stream, brute in enumerate(self.brutes) for number in brute.samplable()]

    def expected(self, number: int, *how: Any) -> dict[str, Any]:
        return {**self.brutes[number // FAR].expected(number % FAR, *how), "action": action_of(number)}


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
        real = restored  # the streams go on from where they were


def test_a_manifest_of_format_1_is_read(tmp_path: Path) -> None:
    """What this version's only stream says stood in the manifest itself then."""
    saved, restored, steps = make(10), make(10), play(np.random.default_rng(3), 3, 5)
    for _ in range(25):
        feed(saved, next(steps))
    manifest = saved.save(tmp_path)
    (stream,) = manifest.pop("streams")
    older = {**manifest, **stream, "format": 1}
    assert segment_files(older) == [segment["file"] for segment in stream["segments"]]
    restored.restore(tmp_path, older)
    assert_same_from_here(saved, restored, steps, 20, 0)


# ------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"capacity": 0}, r"replay\.capacity must be at least 1, got 0"),
        ({"storage": "tape"}, r"replay\.storage must be auto, device, memory or disk, got 'tape'"),
    ],
)
def test_config_is_checked(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReplayConfig(**config)


@pytest.mark.parametrize(
    ("shape", "action_dim", "stack", "message"),
    [
        ((7, 2, 2), 3, 3, r"observation_shape is \(7, 2, 2\)"),
        ((6, 2), 3, 3, r"observation_shape is \(6, 2\)"),
        ((6, 2, 2), 0, 3, "action_dim is 0"),
        ((6, 2, 2), 3, 0, "stack is 0"),
    ],
)
def test_shapes_are_checked(shape: tuple[int, ...], action_dim: int, stack: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Replay(ReplayConfig(5), shape, action_dim, stack=stack, device="cpu")


def observation_of(*frame_numbers: int) -> np.ndarray:
    return np.concatenate([frame_of(number) for number in frame_numbers])


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        (observation_of(0, 0, 1), "observation is not one frame repeated"),
        (observation_of(0, 1, 1), "observation is not one frame repeated"),
        (observation_of(0, 0), r"observation has shape \(4, 2, 2\): it must be \(6, 2, 2\)"),
        (observation_of(0, 0, 0).astype(np.float32), "observation has dtype float32: it must be uint8"),
    ],
)
def test_a_first_observation_is_checked(observation: np.ndarray, message: str) -> None:
    replay = make(5)
    with pytest.raises(ValueError, match=message):
        replay.start_episode(observation)
    with pytest.raises(RuntimeError, match=r"call start_episode\(\)"):
        replay.add(action_of(0), 0.0, observation_of(0, 0, 1), terminated=False, truncated=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"next_observation": observation_of(0, 0, 2)}, "not the observation before it shifted by one frame"),
        ({"next_observation": observation_of(0, 1, 0)[::-1]}, "not the observation before it shifted"),
        ({"next_observation": observation_of(0, 1)}, "next_observation has shape"),
        ({"next_observation": observation_of(0, 1, 2).astype(np.int64)}, "next_observation has dtype int64"),
        ({"action": [0.0, 0.0]}, r"action has shape \(2,\): it must be \(3,\)"),
        ({"action": [0.0, np.inf, 0.0]}, "action is .*inf.*: it must be finite"),
        ({"reward": float("nan")}, "reward is nan: it must be finite"),
        ({"reward": -1e39}, r"reward is -1e\+39: it must be finite, also as a float32"),
    ],
)
def test_a_refused_step_leaves_no_trace(change: dict[str, Any], message: str) -> None:
    replay = make(5)
    replay.start_episode(observation_of(0, 0, 0))
    replay.add(action_of(0), 1.0, observation_of(0, 0, 1), terminated=False, truncated=False)
    step = {"action": action_of(1), "reward": 0.0, "next_observation": observation_of(0, 1, 2), **change}
    with pytest.raises(ValueError, match=message):
        replay.add(**step, terminated=False, truncated=False)
    assert len(replay) == 1
    replay.add(action_of(1), 2.0, observation_of(0, 1, 2), terminated=True, truncated=False)
    batch = replay.sample(30, torch.Generator().manual_seed(0), discount=1.0, n_step=2)
    for row, number in enumerate(numbers_in(batch)):
        assert batch.reward[row].item() == [3.0, 2.0][number]
        np.testing.assert_array_equal(batch.next_observation[row], observation_of(0, 1, 2))


def test_calls_out_of_order_are_refused() -> None:
    replay = make(5)
    with pytest.raises(RuntimeError, match="holds no transition yet"):
        replay.sample(1, torch.Generator(), discount=0.9)
    replay.start_episode(observation_of(0, 0, 0))
    with pytest.raises(RuntimeError, match="holds no transition yet"):
        replay.sample(1, torch.Generator(), discount=0.9)
    replay.add(action_of(0), 0.0, observation_of(0, 0, 1), terminated=False, truncated=True)
    with pytest.raises(RuntimeError, match=r"call start_episode\(\)"):
        replay.add(action_of(1), 0.0, observation_of(0, 1, 2), terminated=False, truncated=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"discount": 1.5}, r"discount is 1\.5: it must lie in \[0, 1\]"),
        ({"discount": float("nan")}, "discount is nan"),
        ({"n_step": 0}, "n_step is 0"),
        ({"future": (1, -1)}, r"future is \(1, -1\)"),
    ],
)
def test_what_is_asked_of_sample_is_checked(arguments: dict[str, Any], message: str) -> None:
    settings = {"batch_size": 4, "discount": 0.9, **arguments}
    with pytest.raises(ValueError, match=message):
        two_episodes("terminated").sample(generator=torch.Generator(), **settings)
