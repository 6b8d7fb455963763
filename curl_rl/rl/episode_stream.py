"""The memory layout of one environment's episodes in the replay, which stores each frame once.

A stream consists of two rings. The frame ring holds single images and, if the environment has any, the proprioception
beside each. The transition ring holds action, reward,
``terminated``, the number of the frame that the transition starts from, and its position in the episode. Frames and
transitions are numbered from 0 and never renumbered; number ``i`` is in slot ``i % slots``. An episode of T
transitions stores T + 1 frames, and transition t leads from frame ``f`` to frame ``f + 1``. Three properties follow:

* Two transitions t and t + i belong to the same episode exactly when their frame numbers differ by i: each episode
  boundary adds a frame that no transition starts from.
* The observation at frame ``f`` and position ``p`` is the frames ``f - min(p, k)`` for k = stack - 1, ..., 0, since an
  environment's first observation is its first frame repeated.
* Frames are overwritten in order, so the transitions with all frames still stored form one contiguous range of
  numbers. Sampling draws a uniform integer from that range, without rejection, without reading anything back from the
  device, and without mixing frames across a ring's seam.
"""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from curl_rl.runs.files import read_file, write_durably

_SEGMENT_BYTES = 64 * 2**20  # bounds the memory used by saving and restoring
_HEADER_BYTES = 2**16  # of a segment file, and more than it has
_EPISODE_LENGTH_PLANNED_FOR = 20


class Rings(NamedTuple):
    """Memory of one stream, or of several, with a leading stream dimension."""

    frames: Tensor
    """(frame slots, C·H·W) uint8."""

    proprioception: Tensor
    """(frame slots, P) float32: the vector beside each frame; P is 0 if there is none."""

    action: Tensor
    """(transition slots, A) float32."""

    reward: Tensor
    """(transition slots,) float32."""

    terminated: Tensor
    """(transition slots,) bool."""

    start_frame: Tensor
    """(transition slots,) int64: number of the frame that the transition starts from."""

    position: Tensor
    """(transition slots,) int64: position of the transition in its episode."""

    range: Tensor
    """(2,) int64: the first transition that can be sampled and one past the last. It is on the sampling device, so that
    a CUDA graph captured once samples from the current range."""


def frame_slots(capacity: int, stack: int) -> int:
    """Frame slots for ``capacity`` transitions, if episodes have 20 steps or more.

    The transitions end at most 1 + (capacity - 1) // 20 episodes, each with one extra frame; add the next episode's
    first frame, and the stack - 1 frames before the oldest transition's own.
    """
    return capacity + capacity // _EPISODE_LENGTH_PLANNED_FOR + stack + 1


class EpisodeStream:
    """Writes one environment's episodes into rings that :class:`curl_rl.rl.replay.Replay` owns and samples from.

    Args:
        rings: the stream's part of the replay's memory.
        observation_shape: (stack·C, H, W).
        stack: frames in an observation.
        name: prefix of the stream's file names.
    """

    def __init__(self, rings: Rings, observation_shape: tuple[int, int, int], stack: int, name: str) -> None:
        self._rings = rings
        self._observation_shape = observation_shape
        self._channels = observation_shape[0] // stack
        self._stack = stack
        self._name = name
        self._capacity = len(rings.action)
        # Eviction state is kept on the host, so that adding reads nothing back from a GPU.
        self._earliest_frame = np.zeros(self._capacity, dtype=np.int64)  # needed by the transition's observation
        self._observation = np.zeros(observation_shape, dtype=np.uint8)  # the newest
        self.clear()

    def clear(self) -> None:
        """Forgets everything."""
        self._frame_count = 0  # frames ever stored; also the next frame's number
        self._transition_count = 0  # likewise
        self._oldest = 0  # the first transition that can be sampled
        self._open_position: int | None = None  # of the newest frame in the open episode; None between episodes
        self._segments: list[_Segment] = []
        self._segments_directory: Path | None = None
        self._mark = ""  # in the names of segments, after a salvage
        self._publish_range()

    def __len__(self) -> int:
        """Number of transitions that can be sampled now."""
        return self._transition_count - self._oldest

    @property
    def has_open_episode(self) -> bool:
        """Whether the newest episode may be continued."""
        return self._open_position is not None

    @property
    def nbytes(self) -> int:
        """Bytes of memory used in addition to the rings."""
        return self._earliest_frame.nbytes

    # ------------------------------------------------------------------ adding

    def start_episode(
        self, observation: npt.NDArray[np.uint8], proprioception: npt.NDArray[np.float32] | None = None
    ) -> None:
        """See :meth:`curl_rl.rl.replay.Replay.start_episode`."""
        self._check_observation("observation", observation)
        self._check_proprioception("proprioception", proprioception)
        frames = observation.reshape(self._stack, -1)
        if not np.array_equal(frames[1:], frames[:-1]):
            raise ValueError(
                "observation is not one frame repeated: the replay rebuilds an episode's first stacks from its first "
                "frame, so reset() must fill the stack with it"
            )
        self._store_newest_frame(observation, proprioception)
        self._open_position = 0
        self._evict()

    def add(
        self,
        action: npt.ArrayLike,
        reward: float,
        next_observation: npt.NDArray[np.uint8],
        next_proprioception: npt.NDArray[np.float32] | None = None,
        *,
        terminated: bool,
        truncated: bool,
    ) -> None:
        """See :meth:`curl_rl.rl.replay.Replay.add`."""
        if self._open_position is None:
            raise RuntimeError("Replay.add() without an open episode: call start_episode() with reset()'s observation")
        rings = self._rings
        action = np.array(action, dtype=np.float32)
        if action.shape != rings.action.shape[1:]:
            raise ValueError(f"action must have shape {tuple(rings.action.shape[1:])}, got {action.shape}")
        if not np.isfinite(action).all():
            raise ValueError(f"action must be finite, got {action.tolist()}")
        if not abs(reward) <= torch.finfo(torch.float32).max:  # false for NaN, too
            raise ValueError(f"reward must be finite as a float32, got {reward}")
        self._check_observation("next_observation", next_observation)
        self._check_proprioception("next_proprioception", next_proprioception)
        if not np.array_equal(next_observation[: -self._channels], self._observation[self._channels :]):
            raise ValueError(
                "next_observation is not the previous observation shifted by one frame: the replay stores one new "
                f"frame ({self._channels} channels) per step, so the environment must stack consecutive frames"
            )

        slot = self._transition_count % self._capacity
        newest_frame, position = self._frame_count - 1, self._open_position
        rings.action[slot] = torch.from_numpy(action)
        rings.reward[slot] = float(reward)
        rings.terminated[slot] = bool(terminated)
        rings.start_frame[slot] = newest_frame
        rings.position[slot] = position
        self._earliest_frame[slot] = newest_frame - min(position, self._stack - 1)
        self._transition_count += 1
        self._store_newest_frame(next_observation, next_proprioception)
        self._open_position = None if terminated or truncated else position + 1
        self._evict()

    def _check_observation(self, name: str, observation: npt.NDArray[np.uint8]) -> None:
        if observation.shape != self._observation_shape:
            raise ValueError(f"{name} must have shape {self._observation_shape}, got {observation.shape}")
        if observation.dtype != np.uint8:
            raise ValueError(f"{name} must have dtype uint8, got {observation.dtype}")

    def _check_proprioception(self, name: str, proprioception: npt.NDArray[np.float32] | None) -> None:
        expected = tuple(self._rings.proprioception.shape[1:])
        if proprioception is None:
            if expected != (0,):
                raise ValueError(f"{name} must have shape {expected}, got none")
            return
        if proprioception.shape != expected:
            raise ValueError(f"{name} must have shape {expected}, got {proprioception.shape}")
        if not np.isfinite(proprioception).all():
            raise ValueError(f"{name} must be finite, got {proprioception.tolist()}")

    def _store_newest_frame(
        self, observation: npt.NDArray[np.uint8], proprioception: npt.NDArray[np.float32] | None
    ) -> None:
        np.copyto(self._observation, observation)  # a copy: environments reuse their buffers
        frame = torch.from_numpy(self._observation[-self._channels :]).view(-1)
        slot = self._frame_count % len(self._rings.frames)
        self._rings.frames[slot].copy_(frame)
        if proprioception is not None:
            self._rings.proprioception[slot].copy_(torch.tensor(proprioception, dtype=torch.float32))
        self._frame_count += 1

    def _evict(self) -> None:
        """Drops overwritten transitions and those with an overwritten frame in their observation."""
        self._oldest = max(self._oldest, self._transition_count - self._capacity)
        first_kept_frame = self._frame_count - len(self._rings.frames)
        while (
            self._oldest < self._transition_count
            and self._earliest_frame[self._oldest % self._capacity] < first_kept_frame
        ):
            self._oldest += 1
        self._publish_range()

    def _publish_range(self) -> None:
        self._rings.range.copy_(torch.tensor([self._oldest, self._transition_count]))

    # ----------------------------------------------------------- checkpointing

    def save(self, directory: Path) -> dict[str, Any]:
        """Writes everything new since the last save into ``directory``, resolved and existing. See ``Replay.save``."""
        first_live_frame = self._first_live_frame()
        segments = [segment for segment in self._segments if segment.end_frame > first_live_frame]
        if directory != self._segments_directory or not all(
            (directory / segment.file).exists() for segment in segments
        ):
            segments = []  # another directory, or a file was deleted: write everything that is live
        begin = max(first_live_frame, segments[-1].end_frame if segments else 0)
        first_transition = max(self._oldest, segments[-1].end_transition if segments else 0)
        frames_per_segment = max(1, _SEGMENT_BYTES // self._rings.frames.shape[1])
        while begin < self._frame_count:
            end = min(begin + frames_per_segment, self._frame_count)
            # All new transitions go into the last file, which outlives the others.
            end_transition = self._transition_count if end == self._frame_count else first_transition
            segments.append(self._write_segment(directory, begin, end, first_transition, end_transition))
            begin = end
        self._segments, self._segments_directory = segments, directory
        return {
            "frame_count": self._frame_count,
            "transition_count": self._transition_count,
            "oldest": self._oldest,
            "open_position": self._open_position,
            "segments": [segment._asdict() for segment in segments],
        }

    def restore(self, directory: Path, manifest: dict[str, Any], *, salvage: bool = False) -> int:
        """Restores a saved stream, and returns the number of lost transitions. See ``Replay.restore``."""
        segments = [_Segment(**fields) for fields in manifest["segments"]]
        self.clear()
        damaged: list[_Segment] = []
        for segment in segments:
            try:
                self._read_segment(directory, segment)
            except (OSError, ValueError):
                if not salvage:
                    raise
                damaged.append(segment)
        self._frame_count = manifest["frame_count"]
        self._transition_count = manifest["transition_count"]
        self._oldest = manifest["oldest"]
        self._open_position = manifest["open_position"]
        lost = 0
        if damaged:
            lost = self._close_gaps(segments[0].first_frame, damaged)
            # All that is live is written again, under names that no earlier checkpoint lists: until the next checkpoint
            # is saved, the whole segments are all there is.
            segments, self._open_position, self._mark = [], None, f"-{secrets.token_hex(4)}"
        rings = self._rings
        self._earliest_frame = (rings.start_frame - rings.position.clamp(max=self._stack - 1)).cpu().numpy().copy()
        self._segments, self._segments_directory = segments, directory
        self._publish_range()
        if self._open_position is not None:
            newest = self._frame_count - 1
            numbers = [newest - min(self._open_position, back) for back in range(self._stack - 1, -1, -1)]
            frames = [rings.frames[number % len(rings.frames)].cpu().numpy() for number in numbers]
            np.copyto(self._observation, np.concatenate(frames).reshape(self._observation_shape))
        return lost

    def _close_gaps(self, first_frame: int, damaged: list[_Segment]) -> int:
        """Drops the transitions that a damaged segment held, or some frame of whose observations it held, and renumbers
        the others without gaps; returns how many are dropped.

        Frames keep their numbers, so that the steps before and after a gap are not taken for consecutive ones.
        """
        rings = self._rings
        numbers = torch.arange(self._oldest, self._transition_count, device=rings.position.device)
        slots = numbers % self._capacity
        whole = torch.ones(self._frame_count - first_frame, dtype=torch.bool, device=rings.position.device)
        kept = torch.ones_like(numbers, dtype=torch.bool)
        for segment in damaged:
            whole[segment.first_frame - first_frame : segment.end_frame - first_frame] = False
            kept &= (numbers < segment.first_transition) | (numbers >= segment.end_transition)
        slots = slots[kept]
        start, position = rings.start_frame[slots], rings.position[slots]
        whole_before = torch.cat([whole.new_zeros(1, dtype=torch.int64), whole.cumsum(0)])
        begin, end = start - position.clamp(max=self._stack - 1), start + 2
        slots = slots[whole_before[end - first_frame] - whole_before[begin - first_frame] == end - begin]
        count = len(slots)
        moved = torch.arange(self._transition_count - count, self._transition_count, device=slots.device)
        for ring in self._transition_rings().values():
            ring[moved % self._capacity] = ring[slots]
        self._oldest = self._transition_count - count
        return len(numbers) - count

    def _first_live_frame(self) -> int:
        """The first frame still in use."""
        if len(self):
            return int(self._earliest_frame[self._oldest % self._capacity])
        # An open episode without a transition to sample has only its first frame.
        return self._frame_count if self._open_position is None else self._frame_count - 1

    def _write_segment(
        self, directory: Path, first_frame: int, end_frame: int, first_transition: int, end_transition: int
    ) -> _Segment:
        device = self._rings.frames.device
        frame_slots = torch.arange(first_frame, end_frame, device=device) % len(self._rings.frames)
        slots = torch.arange(first_transition, end_transition, device=device) % self._capacity
        tensors = {name: ring.index_select(0, frame_slots) for name, ring in self._frame_rings().items()}
        tensors |= {name: ring.index_select(0, slots) for name, ring in self._transition_rings().items()}
        payload = safetensors.torch.save({name: tensor.cpu() for name, tensor in tensors.items()})
        file = f"{self._name}{self._mark}-{first_frame:010d}-{end_frame - 1:010d}.safetensors"
        write_durably(directory / file, [payload])
        digest = hashlib.sha256(payload).hexdigest()
        return _Segment(file, digest, first_frame, end_frame, first_transition, end_transition)

    def _read_segment(self, directory: Path, segment: _Segment) -> None:
        if Path(segment.file).name != segment.file:
            raise ValueError(f"replay segment {segment.file} must be a name of a file")
        path = directory / segment.file
        payload = read_file(path, self._largest(segment))
        if hashlib.sha256(payload).hexdigest() != segment.sha256:
            raise ValueError(f"replay segment {path} is damaged: its SHA-256 is not the saved one")
        try:
            tensors = safetensors.torch.load(payload)
        except safetensors.SafetensorError as error:
            raise ValueError(f"replay segment {path} is damaged: {error}") from None
        for first, end, rings in (
            (segment.first_frame, segment.end_frame, self._frame_rings()),
            (segment.first_transition, segment.end_transition, self._transition_rings()),
        ):
            for name, ring in rings.items():
                slots = torch.arange(first, end, device=ring.device) % len(ring)
                ring.index_copy_(0, slots, tensors[name].to(ring.device))

    def _largest(self, segment: _Segment) -> int:
        """The most bytes that the file of a segment may have; a larger one is not read."""
        frames, transitions = segment.end_frame - segment.first_frame, segment.end_transition - segment.first_transition
        each_frame = sum(ring[0].nbytes for ring in self._frame_rings().values())
        each_transition = sum(ring[0].nbytes for ring in self._transition_rings().values())
        return frames * each_frame + transitions * each_transition + _HEADER_BYTES

    def _frame_rings(self) -> dict[str, Tensor]:
        rings = {"frames": self._rings.frames}
        # Without proprioception the files are the same as before there was any.
        return rings | ({"proprioception": self._rings.proprioception} if self._rings.proprioception.shape[1] else {})

    def _transition_rings(self) -> dict[str, Tensor]:
        r = self._rings
        return {
            "action": r.action,
            "reward": r.reward,
            "terminated": r.terminated,
            "start_frame": r.start_frame,
            "position": r.position,
        }


class _Segment(NamedTuple):
    """A file of frames and transitions; ``end`` is one past the last."""

    file: str
    sha256: str
    first_frame: int
    end_frame: int
    first_transition: int
    end_transition: int
