"""The folder of frames: every frame encodes its origin, so stacks can be checked against a plain loop."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from curl_rl.recordings import description as description_module
from curl_rl.recordings import store as frames_module
from curl_rl.recordings.store import FrameWriter, RecordedFrames, Recording, is_recording
from curl_rl.runs.errors import UserError
from curl_rl.runs.files import write_durably

RECORDING = Recording(
    env="tiny-reach",
    size=4,
    action_repeat=2,
    quality="faithful",
    seed=1,
    policy="random",
    state_names=("episode", "step"),
    action_size=1,
)
LENGTHS = (5, 1, 3, 4, 2)


def episode(number: int, length: int) -> dict[str, Any]:
    """Frames whose pixels are all 20 · episode + step, with matching states and actions."""
    return {
        "frames": [np.full((3, 4, 4), 20 * number + step, np.uint8) for step in range(length)],
        "states": [np.array([number, step], np.float64) for step in range(length)],
        "actions": [np.array([step / 8], np.float32) for step in range(length)],
        "rewards": [number + step / 8 for step in range(length)],
    }


def write(folder: Path, lengths: tuple[int, ...] = LENGTHS, **changes: Any) -> Path:
    writer = FrameWriter(folder, replace(RECORDING, **changes))
    for length in lengths[writer.episodes :]:
        writer.add_episode(**episode(writer.episodes, length))
    writer.flush()
    return folder


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames_module, "SHARD_FRAMES", 6)


def codes(observations: Tensor) -> list[list[int]]:
    """The frames in each stack."""
    pixels = observations.unflatten(1, (-1, 3))
    assert (pixels == pixels[:, :, :1, :1, :1]).all()
    return pixels[:, :, 0, 0, 0].tolist()


def test_written_episodes_are_read_back(tmp_path: Path) -> None:
    recorded = RecordedFrames(write(tmp_path / "data"))
    steps = [(number, step) for number, length in enumerate(LENGTHS) for step in range(length)]
    assert len(recorded) == len(steps) == 15
    assert recorded.states.tolist() == [[number, step] for number, step in steps]
    assert recorded.episodes.tolist() == [number for number, _ in steps]
    assert recorded.actions.tolist() == [[step / 8] for _, step in steps]
    assert recorded.rewards.tolist() == [number + step / 8 for number, step in steps]
    assert recorded.starts.tolist() == [0] * 5 + [5] + [6] * 3 + [9] * 4 + [13] * 2
    assert recorded.state_names == ("episode", "step")
    assert recorded.recording == RECORDING
    assert (recorded.states.dtype, recorded.rewards.dtype) == (torch.float64, torch.float32)
    # A shard holds whole episodes and is written once it has six frames: 5 + 1, 3 + 4, and the rest.
    description = json.loads((tmp_path / "data" / "frames.json").read_text())
    assert [(shard["frames"], shard["episodes"]) for shard in description["shards"]] == [(6, 2), (7, 2), (2, 1)]
    assert (description["frames"], description["episodes"], description["format"]) == (15, 5, 1)
    assert is_recording(tmp_path / "data")
    assert not is_recording(tmp_path)


@pytest.mark.parametrize("stack", [1, 3, 7])
def test_an_observation_repeats_its_episodes_first_frame(tmp_path: Path, stack: int) -> None:
    recorded = RecordedFrames(write(tmp_path / "data"))
    steps = [(number, step) for number, length in enumerate(LENGTHS) for step in range(length)]
    order = torch.randperm(15, generator=torch.Generator().manual_seed(1))
    expected = []
    for index in order.tolist():
        number, step = steps[index]
        expected.append([20 * number + max(step - back, 0) for back in reversed(range(stack))])
    observations = recorded.observations(order, stack)
    assert observations.shape == (15, 3 * stack, 4, 4)
    assert observations.dtype == torch.uint8
    assert codes(observations) == expected
    assert codes(recorded.observations(torch.tensor([6, 6]), stack)) == [[40] * stack] * 2
    assert recorded.observations(torch.empty(0, dtype=torch.int64), stack).shape == (0, 3 * stack, 4, 4)


@pytest.mark.parametrize(("episodes", "expected"), [(1, set()), (2, {1}), (4, {3}), (5, {4}), (9, {4}), (10, {4, 9})])
def test_whole_episodes_are_held_out(tmp_path: Path, episodes: int, expected: set[int]) -> None:
    recorded = RecordedFrames(write(tmp_path / "data", (2,) * episodes))
    held = recorded.held_out
    assert set(recorded.episodes[held].tolist()) == expected
    assert int(held.sum()) == 2 * len(expected)


def test_a_stopped_recording_resumes(tmp_path: Path) -> None:
    writer = FrameWriter(tmp_path / "data", RECORDING)
    assert not (tmp_path / "data").exists()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "frames.json.partial").write_bytes(b"half")
    writer = FrameWriter(tmp_path / "data", RECORDING)
    for number in range(3):
        writer.add_episode(**episode(number, LENGTHS[number]))
    del writer  # killed: the third episode has not filled its shard
    # a shard that was written but not yet listed does not count
    (tmp_path / "data" / "frames-00001.safetensors").write_bytes(b"half")
    assert len(RecordedFrames(tmp_path / "data")) == 6
    writer = FrameWriter(tmp_path / "data", RECORDING)
    assert (writer.frames, writer.episodes) == (6, 2)
    stopped, alone = RecordedFrames(write(tmp_path / "data")), RecordedFrames(write(tmp_path / "alone"))
    everything = torch.arange(15)
    assert torch.equal(stopped.observations(everything, 3), alone.observations(everything, 3))
    assert torch.equal(stopped.states, alone.states)


def test_killed_before_the_first_shard_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = tmp_path / "data" / "frames-00000.safetensors"
    alone = write(tmp_path / "alone") / shard.name

    def killed(path: Path, parts: list[bytes]) -> None:
        write_durably(path, parts)
        if path == shard:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(frames_module, "write_durably", killed)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "data")
    assert shard.exists()
    with pytest.raises(UserError, match="lists no shards"):
        RecordedFrames(tmp_path / "data")
    # The unlisted shard still belongs to this recording and to no other.
    with pytest.raises(UserError, match="holds another recording"):
        FrameWriter(tmp_path / "data", replace(RECORDING, seed=2))
    write(tmp_path / "data")
    assert shard.read_bytes() == alone.read_bytes()


def test_frames_without_their_description_are_not_overwritten(tmp_path: Path) -> None:
    shard = write(tmp_path / "data", (2,)) / "frames-00000.safetensors"
    (tmp_path / "data" / "frames.json").unlink()
    before = shard.read_bytes()
    with pytest.raises(UserError, match=r"data exists but is not a recording \(frames.json is missing\)"):
        write(tmp_path / "data", (2,), seed=2)
    assert shard.read_bytes() == before


def test_another_recording_or_folder_is_not_overwritten(tmp_path: Path) -> None:
    write(tmp_path / "data")
    before = {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()}
    with pytest.raises(UserError, match=r"holds another recording \(size: 4 → 8; seed: 1 → 2\): choose another"):
        FrameWriter(tmp_path / "data", replace(RECORDING, size=8, seed=2))
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(UserError, match="other exists but is not a recording"):
        FrameWriter(tmp_path / "other", RECORDING)


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("frames", [np.zeros((3, 4, 5), np.uint8)], r"the episode: frames must be \(1, 3, 4, 4\) torch.uint8"),
        ("frames", [np.zeros((3, 4, 4), np.float32)], "got .* torch.float32"),
        ("states", [np.zeros(3)], r"states must be \(1, 2\)"),
        ("states", [np.array([0, np.nan])], "states are not finite"),
        ("rewards", [0.0, 0.0], r"rewards must be \(1,\)"),
    ],
)
def test_an_episode_that_does_not_fit_is_refused(tmp_path: Path, name: str, value: Any, line: str) -> None:
    writer = FrameWriter(tmp_path / "data", RECORDING)
    with pytest.raises(ValueError, match=line):
        writer.add_episode(**{**episode(0, 1), name: value})
    assert writer.frames == 0


def described(folder: Path, **changes: Any) -> None:
    path = folder / "frames.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def reshard(folder: Path, **changes: Tensor) -> None:
    path = folder / "frames-00001.safetensors"
    tensors = {**safetensors.torch.load(path.read_bytes()), **changes}
    path.write_bytes(safetensors.torch.save(tensors))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


def lengthen(folder: Path) -> None:
    """Adds the third episode of 3 frames, previously cut at 2, then a fourth."""
    writer = FrameWriter(folder, RECORDING)
    assert (writer.frames, writer.episodes, writer.whole_frames, writer.whole_episodes) == (8, 3, 6, 2)
    writer.add_episode(**episode(2, 3))
    assert (writer.frames, writer.episodes, writer.whole_frames, writer.whole_episodes) == (9, 3, 9, 3)
    writer.add_episode(**episode(3, 4))
    writer.flush()


@pytest.fixture
def cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Episodes of 5, 1 and 2 frames in one shard, the last cut."""
    with monkeypatch.context() as patch:
        patch.setattr(frames_module, "SHARD_FRAMES", 100)
        writer = FrameWriter(tmp_path / "cut", RECORDING)
        for number, length in enumerate((5, 1, 2)):
            writer.add_episode(**episode(number, length), cut=length == 2)
        writer.flush()
    return tmp_path / "cut"


def test_a_cut_episode_is_replaced_by_the_complete_one(cut: Path, tmp_path: Path) -> None:
    assert json.loads((cut / "frames.json").read_text())["cut"] is True
    before = RecordedFrames(cut)
    lengthen(cut)
    longer, alone = RecordedFrames(cut), RecordedFrames(write(tmp_path / "alone", LENGTHS[:4]))
    assert torch.equal(longer.episodes, alone.episodes)
    assert torch.equal(longer.frames(torch.arange(13)), alone.frames(torch.arange(13)))
    assert json.loads((cut / "frames.json").read_text())["cut"] is False
    # The replaced shard is deleted, but a process that has it open can still read it.
    assert not (cut / "frames-00000.safetensors").exists()
    assert codes(before.observations(torch.tensor([7]), 1)) == [[41]]
    writer = FrameWriter(cut, RECORDING)
    assert (writer.whole_frames, writer.whole_episodes) == (13, 4)


@pytest.mark.parametrize("moment", range(6))
def test_killed_while_a_cut_episode_is_replaced(
    cut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """Before and after rewriting the shard, writing its description, and removing the old shard."""
    events = 0

    def killing(do: Any) -> Any:
        def event(*arguments: Any, **keywords: Any) -> None:
            nonlocal events
            if events == moment:
                raise KeyboardInterrupt
            do(*arguments, **keywords)
            events += 2
            if events == moment + 1:
                raise KeyboardInterrupt

        return event

    with monkeypatch.context() as patch:
        for module in (frames_module, description_module):
            patch.setattr(module, "write_durably", killing(write_durably))
        patch.setattr(Path, "unlink", killing(Path.unlink))
        with pytest.raises(KeyboardInterrupt):
            lengthen(cut)
    found = RecordedFrames(cut)
    assert found.episodes.bincount().tolist() in ([5, 1, 2], [5, 1, 3])
    assert torch.equal(found.states[:8], RecordedFrames(write(tmp_path / "alone", LENGTHS[:3])).states[:8])
    if len(found) == 8:
        lengthen(cut)
    else:
        write(cut, LENGTHS[:4])
    assert RecordedFrames(cut).episodes.bincount().tolist() == [5, 1, 3, 4]


def test_a_recording_without_the_cut_field_is_treated_as_cut(cut: Path) -> None:
    description = json.loads((cut / "frames.json").read_text())
    del description["cut"]
    (cut / "frames.json").write_text(json.dumps(description))
    assert FrameWriter(cut, RECORDING).whole_episodes == 2


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda f: (f / "frames.json").unlink(), "no recorded frames in .*: frames.json is missing"),
        (lambda f: truncate(f / "frames.json"), "frames.json is damaged"),
        (lambda f: (f / "frames.json").write_bytes(b"\xff\xfe"), "frames.json is damaged"),
        (lambda f: (f / "frames.json").write_text("[]"), "not a description of a recording"),
        (
            lambda f: (f / "frames.json").write_text("[" * 100_000),
            "frames.json is damaged: its brackets are nested too deeply",
        ),
        (lambda f: described(f, format=0), "its format must be a whole number from 1, got 0$"),
        (lambda f: described(f, format=-3), "its format must be a whole number from 1, got -3$"),
        (lambda f: described(f, format=0.5), r"its format must be a whole number from 1, got 0\.5$"),
        (lambda f: described(f, format=True), "its format must be a whole number from 1, got True$"),
        (lambda f: described(f, state_names="ab"), "state_names must be a list, got 'ab'"),
        (lambda f: described(f, format=2), "has format 2, but this version reads up to 1"),
        (lambda f: described(f, shards=[], frames=0, episodes=0), "lists no shards"),
        (lambda f: described(f, size="4"), "names must be strings and counts whole numbers"),
        (
            lambda f: described(f, state_names=["x", "y", "x"]),
            "frames.json is damaged: state_names must be unique, got x twice",
        ),
        (lambda f: described(f, cut="no"), "cut must be true or false, got 'no'"),
        (lambda f: described(f, frames=16), "its shards have 15 frames of 5 episodes in total, but it states 16"),
        (lambda f: described(f, state_names=["one"]), r"states must be \(6, 1\) torch.float64, got \(6, 2\)"),
        (
            lambda f: described(f, shards=[{"name": "../x.safetensors", "frames": 15, "episodes": 5}]),
            "'../x.safetensors' is not a shard name",
        ),
        (lambda f: (f / "frames-00001.safetensors").unlink(), "frames-00001.safetensors is missing"),
        (lambda f: truncate(f / "frames-00001.safetensors"), "frames-00001.safetensors is damaged"),
        (lambda f: (f / "frames-00001.safetensors").write_bytes(b""), "frames-00001.safetensors is damaged"),
        (lambda f: reshard(f, rewards=torch.zeros(6)), r"rewards must be \(7,\) torch.float32, got \(6,\)"),
        (lambda f: reshard(f, episodes=torch.full((7,), 3)), "episode numbers must count up from 0"),
    ],
)
def test_a_damaged_folder_is_one_line(tmp_path: Path, damage: Any, line: str) -> None:
    damage(write(tmp_path / "data"))
    with pytest.raises(UserError, match=line) as refused:
        RecordedFrames(tmp_path / "data")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda f: (f / "frames-00001.safetensors").unlink(), "frames-00001.safetensors is missing"),
        (lambda f: truncate(f / "frames-00001.safetensors"), "frames-00001.safetensors is damaged"),
        (lambda f: reshard(f, episodes=torch.full((7,), 3)), "episode numbers must count up from 0"),
    ],
)
def test_a_damaged_recording_is_not_resumed(tmp_path: Path, damage: Any, line: str) -> None:
    damage(write(tmp_path / "data"))
    before = {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()}
    with pytest.raises(UserError, match=line):
        write(tmp_path / "data", (*LENGTHS, 6))
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()}


def test_state_names_must_be_unique() -> None:
    with pytest.raises(ValueError, match="state_names must be unique, got step twice"):
        replace(RECORDING, state_names=("episode", "step", "step"))


def test_frames_without_a_physical_state(tmp_path: Path) -> None:
    writer = FrameWriter(tmp_path / "data", replace(RECORDING, state_names=()))
    writer.add_episode(**{**episode(0, 2), "states": [np.zeros(0)] * 2})
    writer.flush()
    assert RecordedFrames(tmp_path / "data").states.shape == (2, 0)


@pytest.mark.parametrize(("index", "stack", "line"), [(15, 3, r"\[0, 15\)"), (-1, 3, r"\[0, 15\)"), (0, 0, "stack")])
def test_invalid_indices_and_stacks_are_refused(tmp_path: Path, index: int, stack: int, line: str) -> None:
    recorded = RecordedFrames(write(tmp_path / "data"))
    with pytest.raises(UserError, match=line):
        recorded.observations(torch.tensor([index]), stack)
