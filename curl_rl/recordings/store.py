"""Recorded frames: a folder of what an environment showed, with the physical state behind each frame.

``frames.json`` describes the recording and lists its shards; ``frames-00000.safetensors`` and so on hold tensors:

``frames``    ``(N, C, H, W)`` uint8, one frame to an agent step, stored once
``states``    ``(N, D)`` float64, the physical state that belongs to the frame, as ``state_names`` says
``actions``   ``(N, A)`` float32, the action taken at the frame
``rewards``   ``(N,)`` float32, the reward of that action
``episodes``  ``(N,)`` int64, the number of the episode, from 0

The frame in which an episode ends, at which no action is taken, is not stored. An episode's frames follow each other
and lie in one shard; the first is the reset's; the last episode may be cut, which ``frames.json`` says then. An
observation is a stack of frames up to its index, the episode's first frame repeated where there are fewer, as in the
replay. A shard counts once ``frames.json`` lists it: a recording that was killed is readable up to there, and goes on
from there.
"""

from __future__ import annotations

import dataclasses
import json
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
"""A shard is written once it has so many frames: at 100×100 pixels about 30 MB."""
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
    """What was recorded, and how. A folder is continued only under the same description."""

    env: str
    """Name of the environment."""
    size: int
    """Height and width of a frame, in pixels."""
    action_repeat: int
    """Environment steps from one frame to the next."""
    quality: str
    """How frames were drawn: faithful or fast."""
    seed: int
    """Seed of episodes and actions."""
    policy: str
    """Who acted: random, or a run and how its policy was used."""
    state_names: tuple[str, ...]
    """What each number of the physical state is, such as position/slider, none twice; empty where none is known."""
    action_size: int
    """Numbers in an action."""
    channels: int = 3
    """Channels of a frame."""

    def __post_init__(self) -> None:
        doubled = [name for name, count in Counter(self.state_names).items() if count > 1]
        if doubled:
            raise UserError(f"state_names has {doubled[0]} twice: each number of the state needs a name of its own")


class Shard(NamedTuple):
    """An entry of the list in ``frames.json``."""

    name: str
    frames: int
    episodes: int


class FrameWriter:
    """Adds episodes to a folder, which is new or holds a recording of the same description.

    Nothing is written before the first episodes fill a shard, and a shard never without ``frames.json``, which says
    whose it is. Only one writer may be at work in a folder.

    Raises:
        UserError: the folder holds something else, another recording, or one that cannot be read.
    """

    def __init__(self, folder: Path, recording: Recording) -> None:
        self.folder, self.recording = folder, recording
        self._shards: list[Shard] = []
        self._waiting: list[dict[str, Tensor]] = []
        self._cut_frames = 0  # of the last episode, if it was cut
        self._next_number = 0
        self._replaced: Shard | None = None  # on the disk and listed until what is in it is there anew
        if (folder / DESCRIPTION).exists():
            earlier, self._shards, cut = _read_description(folder)
            if differences := _differences(earlier, recording):
                raise UserError(f"{folder} holds another recording ({differences}): choose another folder")
            if self._shards:
                # What cannot be read is not worth going on with; pixels stay in the files.
                lengths = RecordedFrames(folder).episodes.bincount()
                self._cut_frames = int(lengths[-1]) if cut else 0
                self._next_number = 1 + max(int(shard.name.split("-")[1].split(".")[0]) for shard in self._shards)
        elif folder.exists() and (not folder.is_dir() or any(p.name not in _LEFT_BY_A_START for p in folder.iterdir())):
            raise UserError(f"{folder} exists and is no recording ({DESCRIPTION} is missing): choose another folder")

    @property
    def frames(self) -> int:
        """Frames recorded so far, those that wait for their shard included."""
        return sum(shard.frames for shard in self._shards) + sum(len(part["frames"]) for part in self._waiting)

    @property
    def episodes(self) -> int:
        """Episodes recorded so far, one that was cut included."""
        return sum(shard.episodes for shard in self._shards) + len(self._waiting)

    @property
    def whole_frames(self) -> int:
        """Frames of the episodes that were recorded to their ends."""
        return self.frames - self._cut_frames

    @property
    def whole_episodes(self) -> int:
        """Episodes that were recorded to their ends, and so the number of the next one to be added."""
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
        """Adds one episode of T ≥ 1 frames, in place of the last one if that was cut.

        What waits is written once it fills a shard; until then an episode that was cut stays on the disk.

        Args:
            frames: ``(C, H, W)`` uint8 each.
            states: ``(D,)`` each.
            actions: ``(A,)`` each.
            rewards: of each action.
            cut: the episode goes on after these frames, and is to be added anew should the recording be made longer.

        Raises:
            ValueError: different numbers of them, another shape, or a number that is not finite.
            OSError: the disk refused; what was written before is intact.
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
        """Writes what waits as a shard.

        Raises:
            OSError: the disk refused; what was written before is intact.
        """
        if not self._waiting:
            return
        whole = {name: torch.cat([part[name] for part in self._waiting]) for name in _DTYPES}
        shard = Shard(f"frames-{self._next_number:05d}.safetensors", len(whole["frames"]), len(self._waiting))
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._shards and self._replaced is None:
            self._describe()  # a shard that nothing describes could be anybody's
        write_durably(self.folder / shard.name, [safetensors.torch.save(whole)])
        self._shards.append(shard)
        self._next_number += 1
        self._waiting.clear()
        self._describe()
        if self._replaced:
            (self.folder / self._replaced.name).unlink(missing_ok=True)
            self._replaced = None

    def _drop_last(self) -> None:
        """Forgets the last episode; if it lies in a shard, the others of that shard wait to be written anew."""
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
    """The frames of a folder; pixels stay in the files, mapped into memory, until they are asked for.

    Raises:
        UserError: a file is missing, damaged, of a newer format or at odds with ``frames.json``; no frames at all.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.recording, shards, _ = _read_description(self.folder)
        if not shards:
            raise UserError(f"{self.folder} holds no frames: {DESCRIPTION} lists no shard")
        parts = [_read_shard(self.folder, shard, self.recording) for shard in shards]
        self._pixels = [part["frames"] for part in parts]
        self._shard_starts = torch.tensor([0, *(shard.frames for shard in shards)]).cumsum(0)
        self.states, self.actions, self.rewards, self.episodes = (
            torch.cat([part[name] for part in parts]) for name in ("states", "actions", "rewards", "episodes")
        )
        """``(N, D)`` float64, ``(N, A)`` float32, ``(N,)`` float32 and ``(N,)`` int64, as at the top of this file."""
        steps = self.episodes.diff()
        in_order = self.episodes[0] == 0 and bool(((steps == 0) | (steps == 1)).all())
        if not in_order or self.episodes[-1] + 1 != sum(shard.episodes for shard in shards):
            raise UserError(f"{self.folder}: the numbers of its episodes do not count up from 0 as {DESCRIPTION} says")
        self.starts = torch.searchsorted(self.episodes, self.episodes)
        """``(N,)`` int64: index of the first frame of each frame's episode."""
        self.ends = torch.searchsorted(self.episodes, self.episodes, right=True) - 1
        """``(N,)`` int64: index of the last."""

    def __len__(self) -> int:
        return len(self.episodes)

    @property
    def state_names(self) -> tuple[str, ...]:
        """What the D numbers of a physical state are."""
        return self.recording.state_names

    @property
    def held_out(self) -> Tensor:
        """``(N,)`` bool, the frames for testing: every fifth episode, or the last one of two to four.

        Whole episodes, because neighbouring frames are nearly the same. None where there is one episode only.
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
    """``(B, stack)`` int64: which frames an observation is made of, oldest first.

    Args:
        indices: ``(B,)``, each observation's newest frame.
        starts: ``(B,)``, the first frame of each one's episode, which stands for those before it.
        stack: frames in an observation.
    """
    back = torch.arange(stack - 1, -1, -1, device=indices.device)
    return torch.maximum(indices[:, None] - back, starts[:, None])


def is_recording(folder: Path | str) -> bool:
    """Whether this is a folder of recorded frames."""
    return (Path(folder) / DESCRIPTION).is_file()


# Of a recorder that was killed before it had written its first description.
_LEFT_BY_A_START = ("run.lock", f"{DESCRIPTION}.partial")


def _read_description(folder: Path) -> tuple[Recording, list[Shard], bool]:
    """What is in ``frames.json``, and whether the last episode was cut."""
    path = folder / DESCRIPTION
    try:
        content: Any = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"no recorded frames in {folder}: {DESCRIPTION} is missing") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:  # JSON's, and bytes that are no UTF-8
        raise UserError(f"{path} is damaged: {one_line(error)}") from None
    except RecursionError:
        raise UserError(f"{path} is damaged: brackets in brackets without end") from None
    try:
        if type(content["format"]) is not int or content["format"] < 1:
            raise UserError(
                f"{path} is damaged: its format must be a whole number from 1, got {content['format']!r:.40}"
            )
        if content["format"] > _FORMAT:
            raise UserError(
                f"{path} has format {content['format']} and this version reads up to {_FORMAT}: install a newer one"
            )
        fields = {field.name: content[field.name] for field in dataclasses.fields(Recording)}
        if not isinstance(fields["state_names"], list):
            raise UserError(f"{path} is damaged: state_names must be a list, got {fields['state_names']!r:.40}")
        names = fields["state_names"] = tuple(fields["state_names"])
        shards = [Shard(entry["name"], entry["frames"], entry["episodes"]) for entry in content["shards"]]
        counts = [content["frames"], content["episodes"], *(count for shard in shards for count in shard[1:])]
        texts = [fields["env"], fields["quality"], fields["policy"], *names, *(shard.name for shard in shards)]
        numbers = [fields["size"], fields["action_repeat"], fields["channels"], fields["action_size"]]
        numbers += [fields["seed"], *counts]
        # Recordings made before this was written down do not say; to record a whole episode again does no harm.
        cut = content.get("cut", True)
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged: no proper description of a recording ({one_line(error)})") from None
    if not all(isinstance(text, str) for text in texts) or not all(type(number) is int for number in numbers):
        raise UserError(f"{path} is damaged: a name that is no text, or a count that is no whole number")
    if not isinstance(cut, bool):
        raise UserError(f"{path} is damaged: cut must be true or false, got {cut!r}")
    for shard in shards:
        if not re.fullmatch(r"frames-\d{5,}\.safetensors", shard.name):
            raise UserError(f"{path} is damaged: {shard.name!r} is no shard's name")
    totals = (sum(shard.frames for shard in shards), sum(shard.episodes for shard in shards))
    if totals != (content["frames"], content["episodes"]):
        raise UserError(
            f"{path} is damaged: its shards have {totals[0]} frames of {totals[1]} episodes together, and it speaks of "
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
        raise UserError(f"{path} is missing: bring it back, or record anew") from None
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
