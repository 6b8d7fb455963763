"""The replay: each frame is stored once; it samples frame stacks, n-step returns and future observations.

Two rings make it. The ring of frames holds single images. The ring of transitions holds action, reward, ``terminated``,
the absolute number of the frame that the transition starts from, and its position in the episode. Frames and
transitions are numbered from 0 and never renumbered; number ``i`` lies in slot ``i % slots``. An episode of T
transitions stores T + 1 frames, and transition t leads from frame ``f`` to frame ``f + 1``. Three things follow:

* Two transitions t and t + i belong to one episode exactly when their frame numbers differ by i: each boundary between
  episodes adds a frame that no transition starts from.
* The observation at frame ``f`` and position ``p`` is the frames ``f - min(p, k)`` for k = stack - 1, ..., 0, since an
  environment's first observation is its first frame repeated.
* Frames are overwritten in order, so the transitions whose frames are all there are one contiguous range of numbers.
  Sampling is a uniform integer from that range: nothing to reject, nothing to read back from the device, and nothing
  that could leak over the rings' seams.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from torch import Tensor

from curl_rl.durable import write_durably
from curl_rl.storage import choose_storage, human_size, map_unnamed_file

_MANIFEST_FORMAT = 1
_SEGMENT_BYTES = 64 * 2**20  # bounds the memory that saving and restoring take
_EPISODE_LENGTH_PLANNED_FOR = 20


@dataclass(frozen=True)
class ReplayConfig:
    """How much the replay keeps, and where."""

    capacity: int = 100_000
    """Transitions (agent steps) kept. Where episodes are shorter than 20 agent steps, fewer: each episode needs one
    frame more than it has steps, and there is room for capacity / 20 of these."""

    storage: Literal["auto", "device", "memory", "disk"] = "auto"
    """Where the frames lie: the GPU ("device"), main memory, or a file in the run's directory. "auto" takes the first
    of these that has room, leaving some for everything else; on a CPU "device" means "memory"."""

    def __post_init__(self) -> None:
        if self.capacity < 1:
            raise ValueError(f"replay.capacity is {self.capacity}: it must be at least 1")
        if self.storage not in ("auto", "device", "memory", "disk"):
            raise ValueError(f'replay.storage is "{self.storage}": it must be auto, device, memory or disk')


class Batch(NamedTuple):
    """B transitions on the agent's device, each seen over the m <= n_step steps that follow in its episode."""

    observation: Tensor
    """(B, stack·C, H, W) uint8."""

    action: Tensor
    """(B, A) float32: the action taken at ``observation``."""

    reward: Tensor
    """(B, 1) float32: the sum of discount^i · r_{t+i} over the m steps."""

    discount: Tensor
    """(B, 1) float32: what multiplies the value of ``next_observation``: discount^m, or 0 where the m steps end in a
    terminated state. A truncated episode keeps its value: time ran out, the task did not end."""

    next_observation: Tensor
    """(B, stack·C, H, W) uint8: m steps after ``observation``."""

    future: tuple[Tensor, ...]
    """For each offset asked for, (B, stack·C, H, W) uint8: the observation that many steps after ``observation``, or
    the last one stored of its episode where that comes sooner."""


class Replay:
    """A replay of pixels that stores each frame once.

    Args:
        config: capacity and storage.
        observation_shape: (stack·C, H, W).
        action_dim: A, the length of an action.
        stack: frames in an observation.
        device: where batches go.
        directory: where storage "disk" makes its file. The file has no name once it is open, so nothing is left
            behind, however the process ends.

    Attributes:
        storage: "device", "memory" or "disk": where the frames lie.
        storage_device: the device whose generators make ``sample`` free of transfers.

    Raises:
        ValueError: a shape that the stack does not divide, or a storage without room for the replay.
    """

    def __init__(
        self,
        config: ReplayConfig,
        observation_shape: Sequence[int],
        action_dim: int,
        *,
        stack: int,
        device: torch.device | str,
        directory: Path | None = None,
    ) -> None:
        if stack < 1:
            raise ValueError(f"stack is {stack}: it must be at least 1")
        if len(observation_shape) != 3 or min(observation_shape) < 1 or observation_shape[0] % stack:
            raise ValueError(
                f"observation_shape is {tuple(observation_shape)}: it must be (stack·C, H, W), here with stack {stack}"
            )
        if action_dim < 1:
            raise ValueError(f"action_dim is {action_dim}: it must be at least 1")
        channels, height, width = observation_shape
        self._observation_shape = (channels, height, width)
        self._channels = channels // stack
        self._stack = stack
        self._capacity = config.capacity
        self._device = torch.device(device)

        # Enough for `capacity` transitions of episodes of 20 steps or more. These end at most 1 + (capacity - 1) // 20
        # episodes, each with a frame of its own; add the next episode's first frame, and the stack - 1 frames before
        # the oldest transition's own.
        frame_slots = config.capacity + config.capacity // _EPISODE_LENGTH_PLANNED_FOR + stack + 1
        frame_bytes = self._channels * height * width
        small_bytes = config.capacity * (4 * action_dim + 4 + 1 + 8 + 8)
        self.storage = choose_storage(config.storage, frame_slots * frame_bytes + small_bytes, self._device, directory)
        self.storage_device = self._device if self.storage == "device" else torch.device("cpu")

        # Main memory is taken page by page as frames arrive: neither branch touches it here.
        if self.storage == "disk":
            assert directory is not None, "choose_storage refuses a disk without a directory"
            self._frames = map_unnamed_file(directory, frame_slots * frame_bytes).view(frame_slots, frame_bytes)
        else:
            self._frames = torch.empty((frame_slots, frame_bytes), dtype=torch.uint8, device=self.storage_device)
        self._directory = directory

        def ring(dtype: torch.dtype, *shape: int) -> Tensor:
            return torch.zeros((config.capacity, *shape), dtype=dtype, device=self.storage_device)

        self._action = ring(torch.float32, action_dim)
        self._reward = ring(torch.float32)
        self._terminated = ring(torch.bool)
        self._start_frame = ring(torch.int64)
        self._position = ring(torch.int64)
        # The first transition that can be sampled and one past the last, where the sampling happens: so that drawing
        # one is the same work whatever they are, and a CUDA graph captured once draws from what is there now.
        self._range = torch.zeros(2, dtype=torch.int64, device=self.storage_device)
        self._stack_offsets = torch.arange(stack - 1, -1, -1, device=self.storage_device)

        # What decides which transitions can be sampled stays on the host, so that adding reads nothing back from a GPU.
        self._earliest_frame = np.zeros(config.capacity, dtype=np.int64)  # that the transition's observation needs
        self._observation = np.zeros(self._observation_shape, dtype=np.uint8)  # the newest
        self._clear()

    def _clear(self) -> None:
        self._frame_count = 0  # frames ever stored, so also the next frame's number
        self._transition_count = 0  # likewise
        self._oldest = 0  # the first transition that can be sampled
        self._open_position: int | None = None  # of the newest frame in the episode under way; None between episodes
        self._segments: list[_Segment] = []
        self._segments_directory: Path | None = None
        self._publish_range()

    def __len__(self) -> int:
        """Number of transitions that can be sampled now."""
        return self._transition_count - self._oldest

    @property
    def nbytes(self) -> int:
        """Bytes that the replay takes when it is full."""
        tensors = (self._frames, self._action, self._reward, self._terminated, self._start_frame, self._position)
        return sum(tensor.nbytes for tensor in tensors) + self._earliest_frame.nbytes

    def describe(self) -> str:
        """One line for the log: how many transitions, how many bytes, and where."""
        where = {
            "device": f"on {self._device}",
            "memory": "in memory",
            "disk": f"on disk, in {self._directory}",
        }[self.storage]
        return f"replay: {self._capacity:,} transitions, {human_size(self.nbytes)} {where}"

    # ------------------------------------------------------------------ adding

    def start_episode(self, observation: npt.NDArray[np.uint8]) -> None:
        """Store an episode's first observation. An episode still open counts as truncated.

        Args:
            observation: (stack·C, H, W) uint8, one frame repeated.

        Raises:
            ValueError: wrong shape or dtype, or an observation that is not one frame repeated.
        """
        self._check_observation("observation", observation)
        frames = observation.reshape(self._stack, -1)
        if not np.array_equal(frames[1:], frames[:-1]):
            raise ValueError(
                "observation is not one frame repeated: the replay rebuilds an episode's first stacks from its first "
                "frame, so reset() must fill the stack with it"
            )
        self._store_newest_frame(observation)
        self._open_position = 0
        self._evict()

    def add(
        self,
        action: npt.ArrayLike,
        reward: float,
        next_observation: npt.NDArray[np.uint8],
        *,
        terminated: bool,
        truncated: bool,
    ) -> None:
        """Store one transition of the episode under way.

        Args:
            action: (A,) taken at the newest observation.
            reward: what the environment gave for it.
            next_observation: (stack·C, H, W) uint8: the newest observation shifted by one frame.
            terminated: the task ended here, and no value follows.
            truncated: the episode was cut short here.

        Raises:
            ValueError: wrong shape or dtype, a number that is not finite, or an observation that is not the one before
                shifted by one frame. Nothing is stored then.
            RuntimeError: no episode is under way.
        """
        if self._open_position is None:
            raise RuntimeError("Replay.add() without an open episode: call start_episode() with reset()'s observation")
        action = np.array(action, dtype=np.float32)
        if action.shape != self._action.shape[1:]:
            raise ValueError(f"action has shape {action.shape}: it must be {tuple(self._action.shape[1:])}")
        if not np.isfinite(action).all():
            raise ValueError(f"action is {action.tolist()}: it must be finite")
        if not abs(reward) <= torch.finfo(torch.float32).max:  # false for NaN, too
            raise ValueError(f"reward is {reward}: it must be finite, also as a float32")
        self._check_observation("next_observation", next_observation)
        if not np.array_equal(next_observation[: -self._channels], self._observation[self._channels :]):
            raise ValueError(
                "next_observation is not the observation before it shifted by one frame: the replay keeps one new "
                f"frame ({self._channels} channels) a step, so the environment must stack consecutive frames"
            )

        slot = self._transition_count % self._capacity
        newest_frame, position = self._frame_count - 1, self._open_position
        self._action[slot] = torch.from_numpy(action)
        self._reward[slot] = float(reward)
        self._terminated[slot] = bool(terminated)
        self._start_frame[slot] = newest_frame
        self._position[slot] = position
        self._earliest_frame[slot] = newest_frame - min(position, self._stack - 1)
        self._transition_count += 1
        self._store_newest_frame(next_observation)
        self._open_position = None if terminated or truncated else position + 1
        self._evict()

    def _check_observation(self, name: str, observation: npt.NDArray[np.uint8]) -> None:
        if observation.shape != self._observation_shape:
            raise ValueError(f"{name} has shape {observation.shape}: it must be {self._observation_shape}")
        if observation.dtype != np.uint8:
            raise ValueError(f"{name} has dtype {observation.dtype}: it must be uint8")

    def _store_newest_frame(self, observation: npt.NDArray[np.uint8]) -> None:
        np.copyto(self._observation, observation)  # a copy: environments reuse their buffers
        frame = torch.from_numpy(self._observation[-self._channels :]).view(-1)
        self._frames[self._frame_count % len(self._frames)].copy_(frame)
        self._frame_count += 1

    def _evict(self) -> None:
        """Leave out the transitions that were overwritten and those whose observation lost a frame."""
        self._oldest = max(self._oldest, self._transition_count - self._capacity)
        first_kept_frame = self._frame_count - len(self._frames)
        while (
            self._oldest < self._transition_count
            and self._earliest_frame[self._oldest % self._capacity] < first_kept_frame
        ):
            self._oldest += 1
        self._publish_range()

    def _publish_range(self) -> None:
        self._range.copy_(torch.tensor([self._oldest, self._transition_count]))

    # ---------------------------------------------------------------- sampling

    def sample(
        self,
        batch_size: int,
        generator: torch.Generator,
        *,
        discount: float,
        n_step: int = 1,
        future: Sequence[int] = (),
    ) -> Batch:
        """Draw transitions uniformly, with replacement, the unfinished episode's included.

        Args:
            batch_size: B.
            generator: the only source of chance; one on ``storage_device`` spares a transfer.
            discount: of the reward, per agent step, in [0, 1].
            n_step: steps summed into ``Batch.reward``; fewer where the episode, or what is stored of it, ends sooner.
            future: offsets, in agent steps, of the observations in ``Batch.future``.

        Raises:
            ValueError: an argument out of its range.
            RuntimeError: nothing is stored yet.
        """
        if not len(self):
            raise RuntimeError("the replay holds no transition yet: add some before sampling")
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}: it must be at least 1")
        if not 0.0 <= discount <= 1.0:
            raise ValueError(f"discount is {discount}: it must lie in [0, 1]")
        if n_step < 1:
            raise ValueError(f"n_step is {n_step}: it must be at least 1")
        if min(future, default=0) < 0:
            raise ValueError(f"future is {tuple(future)}: its offsets must be 0 or more")

        device = self.storage_device
        oldest, end = self._range
        share = torch.rand(batch_size, generator=generator, device=generator.device, dtype=torch.float64).to(device)
        first = oldest + (share * (end - oldest)).long()  # in float64 below `end`, however many there are
        ahead = torch.arange(max((n_step, *future)), device=device)
        transition = first[:, None] + ahead
        slot = transition % self._capacity
        frame, position = self._start_frame[slot[:, 0]], self._position[slot[:, 0]]
        same_episode = self._start_frame[slot] == frame[:, None] + ahead
        steps_stored = (same_episode & (transition < end)).sum(dim=1)

        steps = steps_stored.clamp(max=n_step)
        weight = (discount ** ahead[:n_step]).float() * (ahead[:n_step] < steps[:, None])
        reward = (self._reward[slot[:, :n_step]] * weight).sum(dim=1)
        continues = ~self._terminated[(first + steps - 1) % self._capacity]
        bootstrap = (discount**steps).float() * continues

        def observation_after(count: Tensor | int) -> Tensor:
            return self._gather(frame + count, position + count)

        return Batch(
            observation=observation_after(0),
            action=self._action[slot[:, 0]].to(self._device),
            reward=reward[:, None].to(self._device),
            discount=bootstrap[:, None].to(self._device),
            next_observation=observation_after(steps),
            future=tuple(observation_after(steps_stored.clamp(max=offset)) for offset in future),
        )

    def _gather(self, frame: Tensor, position: Tensor) -> Tensor:
        """(B, stack·C, H, W) on the agent's device: the observations at frames (B,) with these positions (B,)."""
        back = torch.minimum(position[:, None], self._stack_offsets)
        slots = ((frame[:, None] - back) % len(self._frames)).flatten()
        shape = (len(slots), self._frames.shape[1])
        # index_select copies whole rows at the speed of memory; advanced indexing is 5 to 8 times slower on a CPU.
        # Pinned memory lets the copy to the GPU run beside it; torch's allocator holds it until the copy is done.
        pinned = self.storage_device != self._device and self._device.type == "cuda"
        frames = torch.empty(shape, dtype=torch.uint8, device=self.storage_device, pin_memory=pinned)
        torch.index_select(self._frames, 0, slots, out=frames)
        return frames.view(len(frame), *self._observation_shape).to(self._device, non_blocking=pinned)

    # ----------------------------------------------------------- checkpointing

    def save(self, directory: Path) -> dict[str, Any]:
        """Write what is new since the last save, and return a manifest of everything that ``restore`` needs.

        New frames and transitions go into files ``segment-<first frame>-<last frame>.safetensors``; what was written
        before is named again while it holds live data. Each file is complete under its name or absent: it is written
        under a temporary name, synced and renamed.

        Args:
            directory: of the segments; made if absent. Files that no kept manifest names may be deleted.

        Returns:
            A JSON-able manifest: see ``segment_files`` for the names of the files that it needs.

        Raises:
            OSError: the disk refused. The temporary file is removed, and earlier manifests stay good.
        """
        directory.mkdir(parents=True, exist_ok=True)
        directory = directory.resolve()
        first_live_frame = self._first_live_frame()
        segments = [segment for segment in self._segments if segment.end_frame > first_live_frame]
        if directory != self._segments_directory or not all(
            (directory / segment.file).exists() for segment in segments
        ):
            segments = []  # another directory, or somebody deleted a file: write everything that is live
        begin = max(first_live_frame, segments[-1].end_frame if segments else 0)
        first_transition = max(self._oldest, segments[-1].end_transition if segments else 0)
        frames_per_segment = max(1, _SEGMENT_BYTES // self._frames.shape[1])
        while begin < self._frame_count:
            end = min(begin + frames_per_segment, self._frame_count)
            # All new transitions lie in the last of the files, which outlives the others.
            end_transition = self._transition_count if end == self._frame_count else first_transition
            segments.append(self._write_segment(directory, begin, end, first_transition, end_transition))
            begin = end
        self._segments, self._segments_directory = segments, directory
        return {
            "format": _MANIFEST_FORMAT,
            **self._layout(),
            "frame_count": self._frame_count,
            "transition_count": self._transition_count,
            "oldest": self._oldest,
            "open_position": self._open_position,
            "segments": [segment._asdict() for segment in segments],
        }

    def restore(self, directory: Path, manifest: dict[str, Any]) -> None:
        """Become the replay that was saved: the same calls give the same results from here on.

        The storage and the device may differ from the saved replay's.

        Args:
            directory: of the segments.
            manifest: what ``save`` returned.

        Raises:
            ValueError: a manifest of another capacity or shape, or a segment that is damaged. The replay is empty
                then, or as it was; it can be restored from an older manifest.
            OSError: a segment that is missing or cannot be read; likewise.
        """
        if manifest["format"] != _MANIFEST_FORMAT:
            raise ValueError(f"replay manifest has format {manifest['format']}: this version reads {_MANIFEST_FORMAT}")
        for name, here in self._layout().items():
            if manifest[name] != here:
                raise ValueError(f"replay {name} is {here}, but the checkpoint's is {manifest[name]}: they must agree")
        directory = directory.resolve()
        segments = [_Segment(**fields) for fields in manifest["segments"]]

        self._clear()
        for segment in segments:
            self._read_segment(directory, segment)
        self._frame_count = manifest["frame_count"]
        self._transition_count = manifest["transition_count"]
        self._oldest = manifest["oldest"]
        self._open_position = manifest["open_position"]
        self._earliest_frame = (self._start_frame - self._position.clamp(max=self._stack - 1)).cpu().numpy().copy()
        self._segments, self._segments_directory = segments, directory
        self._publish_range()
        if self._open_position is not None:
            position = torch.tensor([self._open_position], device=self.storage_device)
            frame = torch.full_like(position, self._frame_count - 1)
            np.copyto(self._observation, self._gather(frame, position)[0].cpu().numpy())

    def _layout(self) -> dict[str, int | list[int]]:
        return {
            "capacity": self._capacity,
            "stack": self._stack,
            "observation_shape": list(self._observation_shape),
            "action_dim": self._action.shape[1],
        }

    def _first_live_frame(self) -> int:
        """The first frame that anything still needs."""
        if len(self):
            return int(self._earliest_frame[self._oldest % self._capacity])
        # An episode under way without a transition that can be sampled has no more than its first frame.
        return self._frame_count if self._open_position is None else self._frame_count - 1

    def _write_segment(
        self, directory: Path, first_frame: int, end_frame: int, first_transition: int, end_transition: int
    ) -> _Segment:
        frame_slots = torch.arange(first_frame, end_frame, device=self.storage_device) % len(self._frames)
        slots = torch.arange(first_transition, end_transition, device=self.storage_device) % self._capacity
        tensors = {"frames": self._frames.index_select(0, frame_slots)}
        tensors |= {name: ring.index_select(0, slots) for name, ring in self._transition_rings().items()}
        payload = safetensors.torch.save({name: tensor.cpu() for name, tensor in tensors.items()})
        file = f"segment-{first_frame:010d}-{end_frame - 1:010d}.safetensors"
        write_durably(directory / file, [payload])
        digest = hashlib.sha256(payload).hexdigest()
        return _Segment(file, digest, first_frame, end_frame, first_transition, end_transition)

    def _read_segment(self, directory: Path, segment: _Segment) -> None:
        path = directory / segment.file
        payload = path.read_bytes()
        if hashlib.sha256(payload).hexdigest() != segment.sha256:
            raise ValueError(f"replay segment {path} is damaged: its contents are not those that were saved")
        tensors = safetensors.torch.load(payload)
        for first, end, rings in (
            (segment.first_frame, segment.end_frame, {"frames": self._frames}),
            (segment.first_transition, segment.end_transition, self._transition_rings()),
        ):
            for name, ring in rings.items():
                slots = torch.arange(first, end, device=ring.device) % len(ring)
                ring.index_copy_(0, slots, tensors[name].to(ring.device))

    def _transition_rings(self) -> dict[str, Tensor]:
        return {
            "action": self._action,
            "reward": self._reward,
            "terminated": self._terminated,
            "start_frame": self._start_frame,
            "position": self._position,
        }


def segment_files(manifest: dict[str, Any]) -> list[str]:
    """Names of the files in the segments' directory that ``Replay.restore`` needs for this manifest."""
    return [segment["file"] for segment in manifest["segments"]]


class _Segment(NamedTuple):
    """A file of frames and transitions; ``end`` is one past the last."""

    file: str
    sha256: str
    first_frame: int
    end_frame: int
    first_transition: int
    end_transition: int
