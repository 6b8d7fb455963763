"""Recorded frames: a folder of an environment's frames, with the physical state of each.

``frames.json`` describes the recording and lists its shards; ``frames-00000.safetensors`` and so on hold tensors:

``frames``    ``(N, C, H, W)`` uint8, one frame per agent step, stored once
``states``    ``(N, D)`` float64, the physical state of the frame, named by ``state_names``
``actions``   ``(N, A)`` float32, the action taken at the frame
``rewards``   ``(N,)`` float32, the reward of that action
``episodes``  ``(N,)`` int64, the number of the episode, from 0

The final frame of an episode, at which no action is taken, is not stored. An episode's frames are consecutive and in
one shard, starting with the frame of the reset. The last episode may be cut; ``frames.json`` records this. An
observation is a stack of frames up to its index, padded with the episode's first frame, as in the replay. Only shards
listed in ``frames.json`` count: a killed recording is readable up to the last listed shard and resumes from there.

``frames.json`` also holds two SHA-256 per shard: one of its pixels (``pixels``), compared when they are first read, so
that opening a large recording reads no pixels, and one of its other tensors (``numbers``), compared on opening.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from curl_rl.recordings.description import DESCRIPTION, Shard, differences, read_description, write_description
from curl_rl.recordings.description import Recording as Recording
from curl_rl.runs.console import say
from curl_rl.runs.errors import UserError, one_line
from curl_rl.runs.files import delete_file, open_regular, write_durably

SHARD_FRAMES = 1000
"""Number of frames at which a shard is written: about 30 MB at 100×100 pixels."""
_LOOKS = 20  # a recording in progress replaces its last shard while another process opens it
_DTYPES = {
    "frames": torch.uint8,
    "states": torch.float64,
    "actions": torch.float32,
    "rewards": torch.float32,
    "episodes": torch.int64,
}
_NUMBERS = tuple(name for name in _DTYPES if name != "frames")


class FrameWriter:
    """Adds episodes to a folder that is new or holds a recording with the same description.

    Nothing is written until the first episodes fill a shard, and no shard is written before the ``frames.json`` that
    describes it. Only one writer may use a folder at a time.

    Raises:
        UserError: the folder holds something else, another recording, or one that cannot be read.
    """

    def __init__(self, folder: Path, recording: Recording) -> None:
        self.folder, self.recording = folder, recording
        self._shards: list[Shard] = []
        self._waiting: list[dict[str, Tensor]] = []
        self._cut_frames = 0  # of the last episode, if it was cut
        self._next_number = 0
        self._replaced: Shard | None = None  # stays on disk and listed until its content is rewritten
        if (folder / DESCRIPTION).exists():
            earlier, self._shards, cut = read_description(folder)
            if changed := differences(earlier, recording):
                raise UserError(f"{folder} holds another recording ({changed}): choose another folder")
            if self._shards:
                # An unreadable recording must not be continued; pixels are not loaded.
                lengths = RecordedFrames(folder).episodes.bincount()
                self._cut_frames = int(lengths[-1]) if cut else 0
                self._next_number = 1 + max(int(shard.name.split("-")[1].split(".")[0]) for shard in self._shards)
        elif folder.exists() and (not folder.is_dir() or any(p.name not in _LEFT_BY_A_START for p in folder.iterdir())):
            raise UserError(f"{folder} exists but is not a recording ({DESCRIPTION} is missing): choose another folder")

    @property
    def frames(self) -> int:
        """Frames recorded so far, including those not yet written."""
        return sum(shard.frames for shard in self._shards) + sum(len(part["frames"]) for part in self._waiting)

    @property
    def episodes(self) -> int:
        """Episodes recorded so far, including a cut one."""
        return sum(shard.episodes for shard in self._shards) + len(self._waiting)

    @property
    def whole_frames(self) -> int:
        """Frames of the complete episodes."""
        return self.frames - self._cut_frames

    @property
    def whole_episodes(self) -> int:
        """Complete episodes; also the number of the next episode to be added."""
        return self.episodes - (self._cut_frames > 0)

    def add_episode(
        self,
        frames: Sequence[npt.NDArray[np.uint8]],
        states: Sequence[npt.NDArray[np.float64]],
        actions: Sequence[npt.NDArray[np.float32]],
        rewards: Sequence[float],
        *,
        cut: bool = False,
    ) -> None:
        """Adds one episode of T ≥ 1 frames, replacing the last one if that was cut.

        Pending episodes are written once they fill a shard; until then, a replaced episode stays on disk.

        Args:
            frames: ``(C, H, W)`` uint8 each.
            states: ``(D,)`` each.
            actions: ``(A,)`` each.
            rewards: the reward of each action.
            cut: the episode continues after these frames and must be added again if the recording is extended.

        Raises:
            ValueError: the lengths differ, a shape is wrong, or a number is not finite.
            OSError: writing failed; earlier data is intact.
        """
        r = self.recording
        part = {
            "frames": torch.from_numpy(np.stack(frames)),
            "states": torch.from_numpy(np.stack(states).astype(np.float64)),
            "actions": torch.from_numpy(np.stack(actions).astype(np.float32)),
            "rewards": torch.tensor(rewards, dtype=torch.float32),
            "episodes": torch.full((len(frames),), self.whole_episodes),
        }
        _check_shard("the episode", part, r, len(frames))
        for name in ("states", "actions", "rewards"):
            if not part[name].isfinite().all():
                raise ValueError(f"the episode's {name} are not finite")
        if self._cut_frames:
            self._drop_last()
        self._waiting.append(part)
        self._cut_frames = len(frames) if cut else 0
        if sum(len(waiting["frames"]) for waiting in self._waiting) >= SHARD_FRAMES:
            self.flush()

    def flush(self) -> None:
        """Writes the pending episodes as a shard.

        Raises:
            OSError: writing failed; earlier data is intact.
        """
        if not self._waiting:
            return
        whole = {name: torch.cat([part[name] for part in self._waiting]) for name in _DTYPES}
        name = f"frames-{self._next_number:05d}.safetensors"
        shard = Shard(
            name, len(whole["frames"]), len(self._waiting), _sha256(whole, "frames"), _sha256(whole, *_NUMBERS)
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._shards and self._replaced is None:
            self._describe()  # a shard without a description could belong to any recording
        write_durably(self.folder / shard.name, [safetensors.torch.save(whole)])
        self._shards.append(shard)
        self._next_number += 1
        self._waiting.clear()
        self._describe()
        if self._replaced:
            delete_file(self.folder / self._replaced.name)
            self._replaced = None

    def _drop_last(self) -> None:
        """Drops the last episode; if it is in a shard, the shard's other episodes become pending again."""
        if not self._waiting:
            self._replaced = self._shards[-1]
            tensors = _read_shard(self.folder, self._replaced, self.recording)
            _check_pixels(self.folder, self._replaced, tensors["frames"])  # they are about to get a new checksum
            lengths = tensors["episodes"].unique_consecutive(return_counts=True)[1].tolist()
            parts = zip(*(tensors[name].split(lengths) for name in _DTYPES), strict=True)
            self._waiting = [dict(zip(_DTYPES, part, strict=True)) for part in parts]
            self._shards.pop()
        self._waiting.pop()

    def _describe(self) -> None:
        write_description(self.folder, self.recording, self._shards, cut=self._cut_frames > 0)


class RecordedFrames:
    """The frames of a folder; pixels are memory-mapped and read on demand.

    Pixels are compared with their checksum a shard at a time, when the first of its frames is read.

    Raises:
        UserError: a file is missing, damaged, of a newer format or inconsistent with ``frames.json``; or the folder
            holds no frames.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.recording, shards, parts = _read_shards(self.folder)
        if unsigned := sum(shard.pixels is None for shard in shards):
            _say_once(
                f"{self.folder}: {unsigned} of {len(shards)} shards are of an earlier version, without checksums: a "
                "damaged number or pixel in them would not be noticed"
            )
        self._shards = shards
        self._pixels = [part["frames"] for part in parts]
        self._checked = [shard.pixels is None for shard in shards]
        self._shard_starts = torch.tensor([0, *(shard.frames for shard in shards)]).cumsum(0)
        self.states, self.actions, self.rewards, self.episodes = (
            torch.cat([part[name] for part in parts]) for name in ("states", "actions", "rewards", "episodes")
        )
        """``(N, D)`` float64, ``(N, A)`` float32, ``(N,)`` float32 and ``(N,)`` int64; see the module docstring."""
        steps = self.episodes.diff()
        in_order = self.episodes[0] == 0 and bool(((steps == 0) | (steps == 1)).all())
        if not in_order or self.episodes[-1] + 1 != sum(shard.episodes for shard in shards):
            raise UserError(f"{self.folder}: episode numbers must count up from 0 as described in {DESCRIPTION}")
        for shard, part in zip(shards, parts, strict=True):
            _check_numbers(self.folder, shard, part)
        self.starts = torch.searchsorted(self.episodes, self.episodes)
        """``(N,)`` int64: index of the first frame of each frame's episode."""
        self.ends = torch.searchsorted(self.episodes, self.episodes, right=True) - 1
        """``(N,)`` int64: index of the last frame of each frame's episode."""

    def __len__(self) -> int:
        return len(self.episodes)

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of the D numbers of a physical state."""
        return self.recording.state_names

    @property
    def held_out(self) -> Tensor:
        """``(N,)`` bool, the frames for testing: every fifth episode, or the last one of two to four.

        Whole episodes, because neighboring frames are nearly identical. No frames if there is only one episode.
        """
        last = int(self.episodes[-1])
        return self.episodes == last if 1 <= last < 4 else self.episodes % 5 == 4

    def frames(self, indices: Tensor) -> Tensor:
        """``(B, C, H, W)`` uint8: the frames at these ``(B,)`` indices.

        Raises:
            UserError: the pixels of a shard are damaged.
        """
        found = torch.empty((len(indices), *self._pixels[0].shape[1:]), dtype=torch.uint8)
        shards = torch.searchsorted(self._shard_starts, indices, right=True) - 1
        for shard in shards.unique().tolist():
            chosen = shards == shard
            if not self._checked[shard]:
                _check_pixels(self.folder, self._shards[shard], self._pixels[shard])
                self._checked[shard] = True
            found[chosen] = self._pixels[shard][indices[chosen] - self._shard_starts[shard]]
        return found

    def observations(self, indices: Tensor, stack: int) -> Tensor:
        """Frame stacks, oldest frame first.

        Args:
            indices: ``(B,)`` int64 on the CPU, in [0, N).
            stack: frames in an observation.

        Returns:
            ``(B, stack·C, H, W)`` uint8.

        Raises:
            UserError: an index out of range, a stack below 1, or damaged pixels.
        """
        if stack < 1:
            raise UserError(f"stack must be at least 1, got {stack}")
        if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < len(self):
            raise UserError(f"indices must lie in [0, {len(self)}), got {int(indices.min())} to {int(indices.max())}")
        places = stack_indices(indices, self.starts[indices], stack)
        return self.frames(places.flatten()).unflatten(0, (-1, stack)).flatten(1, 2)


def stack_indices(indices: Tensor, starts: Tensor, stack: int) -> Tensor:
    """``(B, stack)`` int64: indices of the frames in each observation, oldest first.

    Args:
        indices: ``(B,)``, each observation's newest frame.
        starts: ``(B,)``, the first frame of each observation's episode, which replaces the frames before it.
        stack: frames in an observation.
    """
    back = torch.arange(stack - 1, -1, -1, device=indices.device)
    return torch.maximum(indices[:, None] - back, starts[:, None])


def is_recording(folder: Path | str) -> bool:
    """Whether this is a folder of recorded frames."""
    return os.path.isfile(Path(folder) / DESCRIPTION)  # False, unlike Path's, also for a folder that must not be read


# Left by a recorder that was killed before it wrote its first description.
_LEFT_BY_A_START = ("run.lock", f"{DESCRIPTION}.partial")


def _read_shard(folder: Path, shard: Shard, recording: Recording) -> dict[str, Tensor]:
    path = folder / shard.name
    try:
        open_regular(path).close()  # safetensors would wait for the other end of a pipe
        with safetensors.safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in _DTYPES if name in file.keys()}  # noqa: SIM118
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path} is missing: restore it, or record again") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {one_line(error)}") from None
    except safetensors.SafetensorError as error:
        raise UserError(f"{path} is damaged: {one_line(error)}") from None
    try:
        _check_shard(str(path), tensors, recording, shard.frames)
    except ValueError as error:
        raise UserError(str(error)) from None
    return tensors


def _read_shards(folder: Path) -> tuple[Recording, list[Shard], list[dict[str, Tensor]]]:
    """The description and all shards of one moment, also while the recording is being written."""
    for look in range(_LOOKS):
        recording, shards, _ = read_description(folder)
        if not shards:
            raise UserError(f"{folder} holds no frames: {DESCRIPTION} lists no shards")
        try:
            return recording, shards, [_read_shard(folder, shard, recording) for shard in shards]
        except UserError:
            if look == _LOOKS - 1 or read_description(folder)[1] == shards:
                raise
    raise AssertionError("the last look returns or raises")


def _check_numbers(folder: Path, shard: Shard, tensors: dict[str, Tensor]) -> None:
    if shard.numbers is not None and _sha256(tensors, *_NUMBERS) != shard.numbers:
        raise _damaged(folder / shard.name, ", ".join(_NUMBERS[:-1]) + f" or {_NUMBERS[-1]}")


def _check_pixels(folder: Path, shard: Shard, pixels: Tensor) -> None:
    if shard.pixels is not None and _sha256({"frames": pixels}, "frames") != shard.pixels:
        raise _damaged(folder / shard.name, "frames")


def _sha256(tensors: dict[str, Tensor], *names: str) -> str:
    digest = hashlib.sha256()
    for name in names:
        digest.update(tensors[name].contiguous().numpy().data)
    return digest.hexdigest()


def _damaged(path: Path, part: str) -> UserError:
    return UserError(f"{path} is damaged: its {part} do not match their checksum; restore it, or record again")


@functools.cache
def _say_once(line: str) -> None:
    say(line)


def _check_shard(name: str, tensors: dict[str, Tensor], recording: Recording, count: int) -> None:
    r = recording
    shapes: dict[str, tuple[int, ...]] = {
        "frames": (count, r.channels, r.size, r.size),
        "states": (count, len(r.state_names)),
        "actions": (count, r.action_size),
        "rewards": (count,),
        "episodes": (count,),
    }
    for key, dtype in _DTYPES.items():
        if key not in tensors:
            raise ValueError(f"{name} has no {key}")
        found = (tuple(tensors[key].shape), tensors[key].dtype)
        if found != (shapes[key], dtype):
            raise ValueError(f"{name}: {key} must be {shapes[key]} {dtype}, got {found[0]} {found[1]}")
