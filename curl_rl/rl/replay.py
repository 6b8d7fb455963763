"""The replay: each frame is stored once; it samples frame stacks, n-step returns and future observations.

See ``episode_stream`` for the memory layout of one environment's episodes. Here the streams of one or more environments
share memory, and are sampled from as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from curl_rl.ranges import at_least, check_ranges
from curl_rl.rl.episode_stream import EpisodeStream, Rings, frame_slots
from curl_rl.runs.storage import choose_storage, human_size, map_unnamed_file

_MANIFEST_FORMAT = 2


@dataclass(frozen=True)
class ReplayConfig:
    """How much the replay keeps, and where."""

    capacity: Annotated[int, at_least(1)] = 100_000
    """Transitions (agent steps) kept. Where episodes are shorter than 20 agent steps, fewer: each episode needs one
    frame more than it has steps, and there is room for capacity / 20 of these. Several environments share it."""

    storage: Literal["auto", "device", "memory", "disk"] = "auto"
    """Where the frames lie: the GPU ("device"), main memory, or a file in the run's directory. "auto" takes the first
    of these that has room, leaving some for everything else; on a CPU "device" means "memory"."""

    def __post_init__(self) -> None:
        check_ranges(self, "replay")


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

    actions_ahead: Tensor | None = None
    """(B, K, A) float32, where K is the largest offset asked for: the actions taken from ``observation`` on, ``action``
    first, then zeros past the last transition stored of the episode. None if no offset was asked for."""


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
        streams: environments that add to it. Each has an equal part of the capacity.

    Attributes:
        storage: "device", "memory" or "disk": where the frames lie.
        storage_device: the device whose generators make ``sample`` free of transfers.

    Raises:
        ValueError: a shape that the stack does not divide, a capacity below the number of streams, or a storage
            without room for the replay.
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
        streams: int = 1,
    ) -> None:
        if stack < 1:
            raise ValueError(f"stack is {stack}: it must be at least 1")
        if len(observation_shape) != 3 or min(observation_shape) < 1 or observation_shape[0] % stack:
            raise ValueError(
                f"observation_shape is {tuple(observation_shape)}: it must be (stack·C, H, W), here with stack {stack}"
            )
        if action_dim < 1:
            raise ValueError(f"action_dim is {action_dim}: it must be at least 1")
        if not 1 <= streams <= config.capacity:
            raise ValueError(f"streams is {streams}: it must be at least 1 and at most the capacity {config.capacity}")
        channels, height, width = observation_shape
        self._observation_shape = (channels, height, width)
        self._stack = stack
        self._capacity = config.capacity
        self._device = torch.device(device)

        transition_slots = config.capacity // streams
        frames_kept, frame_bytes = frame_slots(transition_slots, stack), channels // stack * height * width
        needed = replay_bytes(config.capacity, observation_shape, action_dim, stack=stack, streams=streams)
        self.storage = choose_storage(config.storage, needed, self._device, directory)
        self.storage_device = self._device if self.storage == "device" else torch.device("cpu")
        self._directory = directory

        # Main memory is taken page by page as frames arrive: neither branch touches it here.
        if self.storage == "disk":
            assert directory is not None, "choose_storage refuses a disk without a directory"
            frames = map_unnamed_file(directory, streams * frames_kept * frame_bytes)
            frames = frames.view(streams, frames_kept, frame_bytes)
        else:
            shape = (streams, frames_kept, frame_bytes)
            frames = torch.empty(shape, dtype=torch.uint8, device=self.storage_device)

        def zeros(dtype: torch.dtype, *shape: int) -> Tensor:
            return torch.zeros((streams, *shape), dtype=dtype, device=self.storage_device)

        rings = Rings(
            frames,
            action=zeros(torch.float32, transition_slots, action_dim),
            reward=zeros(torch.float32, transition_slots),
            terminated=zeros(torch.bool, transition_slots),
            start_frame=zeros(torch.int64, transition_slots),
            position=zeros(torch.int64, transition_slots),
            range=zeros(torch.int64, 2),
        )
        self._range = rings.range
        # Sampling addresses all streams' slots in one row, one stream's after the other's.
        self._frames, self._action, self._reward, self._terminated, self._start_frame, self._position = (
            ring.flatten(0, 1) for ring in rings[:6]
        )
        self._frame_slots, self._transition_slots = frames_kept, transition_slots
        self._stack_offsets = torch.arange(stack - 1, -1, -1, device=self.storage_device)
        self._streams = [
            EpisodeStream(
                Rings(*(ring[number] for ring in rings)),
                self._observation_shape,
                stack,
                "segment" if streams == 1 else f"segment-{number}",
            )
            for number in range(streams)
        ]

    def __len__(self) -> int:
        """Number of transitions that can be sampled now."""
        return sum(len(stream) for stream in self._streams)

    @property
    def nbytes(self) -> int:
        """Bytes that the replay takes when it is full."""
        tensors = (self._frames, self._action, self._reward, self._terminated, self._start_frame, self._position)
        return sum(tensor.nbytes for tensor in tensors) + sum(stream.nbytes for stream in self._streams)

    def describe(self) -> str:
        """One line for the log: how many transitions, how many bytes, and where."""
        where = {
            "device": f"on {self._device}",
            "memory": "in memory",
            "disk": f"on disk, in {self._directory}",
        }[self.storage]
        return f"replay: {len(self._action):,} transitions, {human_size(self.nbytes)} {where}"

    # ------------------------------------------------------------------ adding

    def start_episode(self, observation: npt.NDArray[np.uint8], *, stream: int = 0) -> None:
        """Store an episode's first observation. An episode still open counts as truncated.

        Args:
            observation: (stack·C, H, W) uint8, one frame repeated.
            stream: number of the environment.

        Raises:
            ValueError: wrong shape or dtype, or an observation that is not one frame repeated.
        """
        self._streams[stream].start_episode(observation)

    def add(
        self,
        action: npt.ArrayLike,
        reward: float,
        next_observation: npt.NDArray[np.uint8],
        *,
        terminated: bool,
        truncated: bool,
        stream: int = 0,
    ) -> None:
        """Store one transition of the episode under way.

        Args:
            action: (A,) taken at the newest observation.
            reward: what the environment gave for it.
            next_observation: (stack·C, H, W) uint8: the newest observation shifted by one frame.
            terminated: the task ended here, and no value follows.
            truncated: the episode was cut short here.
            stream: number of the environment.

        Raises:
            ValueError: wrong shape or dtype, a number that is not finite, or an observation that is not the one before
                shifted by one frame. Nothing is stored then.
            RuntimeError: no episode is under way.
        """
        self._streams[stream].add(action, reward, next_observation, terminated=terminated, truncated=truncated)

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
            future: offsets, in agent steps, of the observations in ``Batch.future``; ``Batch.actions_ahead`` holds the
                actions between them.

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
        share = torch.rand(batch_size, generator=generator, device=generator.device, dtype=torch.float64).to(device)
        stream, first, end = self._place(share)
        slot_of = stream * self._transition_slots  # the stream's first
        ahead = torch.arange(max((n_step, *future)), device=device)
        transition = first[:, None] + ahead
        slot = slot_of[:, None] + transition % self._transition_slots
        frame, position = self._start_frame[slot[:, 0]], self._position[slot[:, 0]]
        same_episode = self._start_frame[slot] == frame[:, None] + ahead
        stored = same_episode & (transition < end[:, None])
        steps_stored = stored.sum(dim=1)

        steps = steps_stored.clamp(max=n_step)
        weight = (discount ** ahead[:n_step]).float() * (ahead[:n_step] < steps[:, None])
        reward = (self._reward[slot[:, :n_step]] * weight).sum(dim=1)
        continues = ~self._terminated[slot_of + (first + steps - 1) % self._transition_slots]
        bootstrap = (discount**steps).float() * continues

        def observation_after(count: Tensor | int) -> Tensor:
            return self._gather(stream, frame + count, position + count)

        def actions_ahead(count: int) -> Tensor:
            return self._action[slot[:, :count]].masked_fill(~stored[:, :count, None], 0.0)

        return Batch(
            observation=observation_after(0),
            action=self._sent(self._action[slot[:, 0]]),
            reward=self._sent(reward[:, None]),
            discount=self._sent(bootstrap[:, None]),
            next_observation=observation_after(steps),
            future=tuple(observation_after(steps_stored.clamp(max=offset)) for offset in future),
            actions_ahead=self._sent(actions_ahead(max(future))) if future else None,
        )

    def _place(self, share: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For (B,) shares in [0, 1) of all that can be sampled: stream, transition, and the end of its stream."""
        oldest, end = self._range.unbind(1)
        before = (end - oldest).cumsum(0)  # transitions in this stream and those before it
        place = (share * before[-1]).long()  # in float64 below the sum, however many there are
        stream = torch.searchsorted(before, place, right=True)
        return stream, end[stream] - (before[stream] - place), end[stream]

    def _gather(self, stream: Tensor, frame: Tensor, position: Tensor) -> Tensor:
        """(B, stack·C, H, W) on the agent's device: the observations at frames (B,) with these positions (B,)."""
        back = torch.minimum(position[:, None], self._stack_offsets)
        slots = (stream[:, None] * self._frame_slots + (frame[:, None] - back) % self._frame_slots).flatten()
        shape = (len(slots), self._frames.shape[1])
        # index_select copies whole rows at the speed of memory; advanced indexing is 5 to 8 times slower on a CPU.
        frames = torch.empty(shape, dtype=torch.uint8, device=self.storage_device, pin_memory=self._sends_to_gpu)
        torch.index_select(self._frames, 0, slots, out=frames)
        return self._sent(frames.view(len(frame), *self._observation_shape))

    @property
    def _sends_to_gpu(self) -> bool:
        return self.storage_device != self._device and self._device.type == "cuda"

    def _sent(self, numbers: Tensor) -> Tensor:
        """The same on the agent's device.

        To a GPU from pinned memory: sampling goes on meanwhile, waiting neither for the copy nor for the update before.
        PyTorch's allocator holds the memory until the copy is done.
        """
        if not self._sends_to_gpu:
            return numbers.to(self._device)
        return numbers.pin_memory().to(self._device, non_blocking=True)  # pinned already, it is itself

    # ----------------------------------------------------------- checkpointing

    def save(self, directory: Path) -> dict[str, Any]:
        """Write what is new since the last save, and return a manifest of everything that ``restore`` needs.

        New frames and transitions go into files ``segment-<first frame>-<last frame>.safetensors`` (with several
        streams, ``segment-<stream>-…``); what was written before is named again while it holds live data. Each file is
        complete under its name or absent: it is written under a temporary name, synced and renamed.

        Args:
            directory: of the segments; made if absent. Files that no kept manifest names may be deleted.

        Returns:
            A JSON-able manifest: see ``segment_files`` for the names of the files that it needs.

        Raises:
            OSError: the disk refused. The temporary file is removed, and earlier manifests stay good.
        """
        directory.mkdir(parents=True, exist_ok=True)
        directory = directory.resolve()
        streams = [stream.save(directory) for stream in self._streams]
        return {"format": _MANIFEST_FORMAT, **self._layout(), "streams": streams}

    def restore(self, directory: Path, manifest: dict[str, Any]) -> None:
        """Become the replay that was saved: the same calls give the same results from here on.

        The storage and the device may differ from the saved replay's.

        Args:
            directory: of the segments.
            manifest: what ``save`` returned.

        Raises:
            ValueError: a manifest of another capacity, shape or number of streams, or a segment that is damaged. The
                replay is empty then, or as it was; it can be restored from an older manifest.
            OSError: a segment that is missing or cannot be read; likewise.
        """
        if manifest["format"] not in (1, _MANIFEST_FORMAT):
            raise ValueError(
                f"replay manifest has format {manifest['format']}: this version reads 1 and {_MANIFEST_FORMAT}"
            )
        for name, here in self._layout().items():
            if manifest[name] != here:
                raise ValueError(f"replay {name} is {here}, but the checkpoint's is {manifest[name]}: they must agree")
        streams = _streams(manifest)
        if len(streams) != len(self._streams):
            raise ValueError(
                f"replay has {len(self._streams)} streams, but the checkpoint's has {len(streams)}: they must agree"
            )
        directory = directory.resolve()
        for stream in self._streams:
            stream.clear()
        try:
            for stream, saved in zip(self._streams, streams, strict=True):
                stream.restore(directory, saved)
        except BaseException:
            for stream in self._streams:
                stream.clear()
            raise

    def _layout(self) -> dict[str, int | list[int]]:
        return {
            "capacity": self._capacity,
            "stack": self._stack,
            "observation_shape": list(self._observation_shape),
            "action_dim": self._action.shape[1],
        }


def replay_bytes(
    capacity: int, observation_shape: Sequence[int], action_dim: int, *, stack: int, streams: int = 1
) -> int:
    """Bytes that a replay of these sizes takes; the arguments are those of :class:`Replay`."""
    channels, height, width = observation_shape
    slots = capacity // streams
    frames = frame_slots(slots, stack) * (channels // stack) * height * width
    transition = 4 * action_dim + 4 + 1 + 8 + 8  # action, reward, terminated, start frame, position
    return streams * (frames + slots * transition)


def segment_files(manifest: dict[str, Any]) -> list[str]:
    """Names of the files in the segments' directory that ``Replay.restore`` needs for this manifest."""
    return [segment["file"] for stream in _streams(manifest) for segment in stream["segments"]]


def _streams(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """What is said of each stream; a manifest of format 1 has one, and says it without a list."""
    return [manifest] if manifest["format"] == 1 else manifest["streams"]
