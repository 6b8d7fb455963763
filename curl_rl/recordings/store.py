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
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from curl_rl.runs.errors import UserError, one_line
from curl_rl.runs.files import write_durably

DESCRIPTION = "frames.json"
SHARD_FRAMES = 1000
"""Number of frames at which a shard is written: about 30 MB at 100×100 pixels."""
_FORMAT = 1
_DTYPES = {
    "frames": torch.uint8,
    "states": torch.float64,
    "actions": torch.float32,
    "rewards": torch.float32,
    "episodes": torch.int64,
}


@dataclass(frozen=True)
class Recording:
    """Description of a recording. A folder can be continued only with the same description."""

    env: str
    """Name of the environment."""
    size: int
    """Height and width of a frame, in pixels."""
    action_repeat: int
    """Environment steps from one frame to the next."""
    quality: str
    """Rendering quality of the frames: faithful or fast."""
    seed: int
    """Seed of episodes and actions."""
    policy: str
    """The policy that acted: random, or a run and how its policy was used."""
    state_names: tuple[str, ...]
    """Unique name of each number of the physical state, such as position/slider; empty if there is none."""
    action_size: int
    """Numbers in an action."""
    channels: int = 3
    """Channels of a frame."""
    camera: int | str | None = None
    """Number or name of the camera; None for the environment's usual one."""
    max_episode_steps: int | None = None
    """Environment steps after which episodes were truncated at the latest; None for the environment's own limit."""

    def __post_init__(self) -> None:
        doubled = [name for name, count in Counter(self.state_names).items() if count > 1]
        if doubled:
            raise UserError(f"state_names must be unique, got {doubled[0]} twice")


class Shard(NamedTuple):
    """An entry of the list in ``frames.json``."""

    name: str
    frames: int
    episodes: int


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
            earlier, self._shards, cut = _read_description(folder)
            if differences := _differences(earlier, recording):
                raise UserError(f"{folder} holds another recording ({differences}): choose another folder")
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
        shard = Shard(f"frames-{self._next_number:05d}.safetensors", len(whole["frames"]), len(self._waiting))
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._shards and self._replaced is None:
            self._describe()  # a shard without a description could belong to any recording
        write_durably(self.folder / shard.name, [safetensors.torch.save(whole)])
        self._shards.append(shard)
        self._next_number += 1
        self._waiting.clear()
        self._describe()
        if self._replaced:
            (self.folder / self._replaced.name).unlink(missing_ok=True)
            self._replaced = None

    def _drop_last(self) -> None:
        """Drops the last episode; if it is in a shard, the shard's other episodes become pending again."""
        if not self._waiting:
            self._replaced = self._shards[-1]
            tensors = _read_shard(self.folder, self._replaced, self.recording)
            lengths = tensors["episodes"].unique_consecutive(return_counts=True)[1].tolist()
            parts = zip(*(tensors[name].split(lengths) for name in _DTYPES), strict=True)
            self._waiting = [dict(zip(_DTYPES, part, strict=True)) for part in parts]
            self._shards.pop()
        self._waiting.pop()

    def _describe(self) -> None:
        description = {
            "format": _FORMAT,
            **dataclasses.asdict(self.recording),
            "frames": sum(shard.frames for shard in self._shards),
            "episodes": sum(shard.episodes for shard in self._shards),
            "cut": self._cut_frames > 0,
            "shards": [shard._asdict() for shard in self._shards],
        }
        write_durably(self.folder / DESCRIPTION, [(json.dumps(description, indent=2) + "\n").encode()])


class RecordedFrames:
    """The frames of a folder; pixels are memory-mapped and read on demand.

    Raises:
        UserError: a file is missing, damaged, of a newer format or inconsistent with ``frames.json``; or the folder
            holds no frames.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.recording, shards, _ = _read_description(self.folder)
        if not shards:
            raise UserError(f"{self.folder} holds no frames: {DESCRIPTION} lists no shards")
        parts = [_read_shard(self.folder, shard, self.recording) for shard in shards]
        self._pixels = [part["frames"] for part in parts]
        self._shard_starts = torch.tensor([0, *(shard.frames for shard in shards)]).cumsum(0)
        self.states, self.actions, self.rewards, self.episodes = (
            torch.cat([part[name] for part in parts]) for name in ("states", "actions", "rewards", "episodes")
        )
        """``(N, D)`` float64, ``(N, A)`` float32, ``(N,)`` float32 and ``(N,)`` int64; see the module docstring."""
        steps = self.episodes.diff()
        in_order = self.episodes[0] == 0 and bool(((steps == 0) | (steps == 1)).all())
        if not in_order or self.episodes[-1] + 1 != sum(shard.episodes for shard in shards):
            raise UserError(f"{self.folder}: episode numbers must count up from 0 as described in {DESCRIPTION}")
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
        """``(B, C, H, W)`` uint8: the frames at these ``(B,)`` indices."""
        found = torch.empty((len(indices), *self._pixels[0].shape[1:]), dtype=torch.uint8)
        shards = torch.searchsorted(self._shard_starts, indices, right=True) - 1
        for shard in shards.unique().tolist():
            chosen = shards == shard
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
            UserError: an index out of range, or a stack below 1.
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


def _read_description(folder: Path) -> tuple[Recording, list[Shard], bool]:
    """Reads ``frames.json``: the recording, its shards, and whether the last episode was cut."""
    path = folder / DESCRIPTION
    try:
        content: Any = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"no recorded frames in {folder}: {DESCRIPTION} is missing") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:  # invalid JSON or UTF-8
        raise UserError(f"{path} is damaged: {one_line(error)}") from None
    except RecursionError:
        raise UserError(f"{path} is damaged: its brackets are nested too deeply") from None
    try:
        if type(content["format"]) is not int or content["format"] < 1:
            raise UserError(
                f"{path} is damaged: its format must be a whole number from 1, got {content['format']!r:.40}"
            )
        if content["format"] > _FORMAT:
            raise UserError(
                f"{path} has format {content['format']}, but this version reads up to {_FORMAT}: update curl_rl"
            )
        content = {"camera": None, "max_episode_steps": None, **content}  # older recordings have no such fields
        fields = {field.name: content[field.name] for field in dataclasses.fields(Recording)}
        if not isinstance(fields["state_names"], list):
            raise UserError(f"{path} is damaged: state_names must be a list, got {fields['state_names']!r:.40}")
        names = fields["state_names"] = tuple(fields["state_names"])
        shards = [Shard(entry["name"], entry["frames"], entry["episodes"]) for entry in content["shards"]]
        counts = [content["frames"], content["episodes"], *(count for shard in shards for count in shard[1:])]
        texts = [fields["env"], fields["quality"], fields["policy"], *names, *(shard.name for shard in shards)]
        numbers = [fields["size"], fields["action_repeat"], fields["channels"], fields["action_size"]]
        numbers += [fields["seed"], *counts]
        # Older recordings have no such field; recording a complete episode again does no harm.
        cut = content.get("cut", True)
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged: not a description of a recording ({one_line(error)})") from None
    if not all(isinstance(text, str) for text in texts) or not all(type(number) is int for number in numbers):
        raise UserError(f"{path} is damaged: names must be strings and counts whole numbers")
    if fields["camera"] is not None and type(fields["camera"]) not in (int, str):
        raise UserError(f"{path} is damaged: camera must be a number, a name or null, got {fields['camera']!r:.40}")
    limit = fields["max_episode_steps"]
    if limit is not None and (type(limit) is not int or limit < 1):
        raise UserError(f"{path} is damaged: max_episode_steps must be null or at least 1, got {limit!r:.40}")
    if not isinstance(cut, bool):
        raise UserError(f"{path} is damaged: cut must be true or false, got {cut!r}")
    for shard in shards:
        if not re.fullmatch(r"frames-\d{5,}\.safetensors", shard.name):
            raise UserError(f"{path} is damaged: {shard.name!r} is not a shard name")
    totals = (sum(shard.frames for shard in shards), sum(shard.episodes for shard in shards))
    if totals != (content["frames"], content["episodes"]):
        raise UserError(
            f"{path} is damaged: its shards have {totals[0]} frames of {totals[1]} episodes in total, but it states "
            f"{content['frames']} of {content['episodes']}"
        )
    try:
        return Recording(**fields), shards, cut
    except UserError as error:
        raise UserError(f"{path} is damaged: {error}") from None


def _read_shard(folder: Path, shard: Shard, recording: Recording) -> dict[str, Tensor]:
    path = folder / shard.name
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in _DTYPES if name in file.keys()}  # noqa: SIM118
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


def _differences(earlier: Recording, now: Recording) -> str:
    fields = (field.name for field in dataclasses.fields(Recording))
    changed = [(name, getattr(earlier, name), getattr(now, name)) for name in fields]
    return "; ".join(f"{name}: {old} → {new}" for name, old, new in changed if old != new)
