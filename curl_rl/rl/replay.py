"""The replay: stores each frame once; samples frame stacks, n-step returns and future observations.

See ``episode_stream`` for the memory layout of one environment's episodes. Here the streams of one or more environments
share memory and are sampled as one.
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
from curl_rl.runs.files import own_folder
from curl_rl.runs.storage import choose_storage, human_size, map_unnamed_file

_MANIFEST_FORMAT = 2


@dataclass(frozen=True)
class ReplayConfig:
    """Size and storage of the replay."""

    capacity: Annotated[int, at_least(1)] = 100_000
    """Transitions (agent steps) to keep, over all environments. Fewer if episodes are shorter than 20 agent steps: each
    episode has one more frame than steps, and there is room for capacity / 20 of these extra frames."""

    storage: Literal["auto", "device", "memory", "disk"] = "auto"
    """Storage of the frames: the GPU ("device"), main memory, or a file in the run's directory. "auto" chooses the
    first of these with enough room, leaving a reserve; on a CPU "device" means "memory"."""

    def __post_init__(self) -> None:
        check_ranges(self, "replay")


class Batch(NamedTuple):
    """B transitions on the agent's device, each over the next m <= n_step steps of its episode."""

    observation: Tensor
    """(B, stack·C, H, W) uint8."""

    action: Tensor
    """(B, A) float32: the action taken at ``observation``."""

    reward: Tensor
    """(B, 1) float32: the sum of discount^i · r_{t+i} over the m steps."""

    discount: Tensor
    """(B, 1) float32: the factor of ``next_observation``'s value: discount^m, or 0 if the m steps end in a terminated
    state. A truncated episode keeps its value: time ran out, the task did not end."""

    next_observation: Tensor
    """(B, stack·C, H, W) uint8: m steps after ``observation``."""

    future: tuple[Tensor, ...]
    """For each requested offset, (B, stack·C, H, W) uint8: the observation that many steps after ``observation``, or
    the episode's last stored one if that comes sooner."""

    actions_ahead: Tensor | None = None
    """(B, K, A) float32, where K is the largest requested offset: the actions from ``observation`` on, starting with
    ``action``, with zeros after the episode's last stored transition. None if no offset was requested."""

    proprioception: Tensor | None = None
    """(B, P) float32: the vector beside the newest frame of ``observation``. None if the replay holds none."""

    next_proprioception: Tensor | None = None
    """(B, P) float32: likewise of ``next_observation``."""


class Replay:
    """A replay of pixels that stores each frame once.

    Args:
        config: capacity and storage.
        observation_shape: (stack·C, H, W).
        action_dim: A, the length of an action.
        stack: frames in an observation.
        device: the device of sampled batches.
        directory: directory of the file for storage "disk". The file is unlinked once it is open, so nothing is left
            behind, however the process ends.
        streams: number of environments. Each has an equal share of the capacity.
        proprioception: P, the length of the vector stored beside each frame; 0: none.

    Attributes:
        storage: the resolved storage of the frames: "device", "memory" or "disk".
        storage_device: the device that samples; a generator on it spares ``sample`` a transfer.

    Raises:
        ValueError: the stack does not divide the channels, the capacity is below the number of streams, or the storage
            has no room for the replay.
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
        proprioception: int = 0,
    ) -> None:
        if stack < 1:
            raise ValueError(f"stack must be at least 1, got {stack}")
        if len(observation_shape) != 3 or min(observation_shape) < 1 or observation_shape[0] % stack:
            raise ValueError(
                f"observation_shape must be (stack·C, H, W) with stack {stack}, got {tuple(observation_shape)}"
            )
        if action_dim < 1:
            raise ValueError(f"action_dim must be at least 1, got {action_dim}")
        if proprioception < 0:
            raise ValueError(f"proprioception must be at least 0, got {proprioception}")
        if not 1 <= streams <= config.capacity:
            raise ValueError(f"streams must be at least 1 and at most the capacity, {config.capacity}, got {streams}")
        channels, height, width = observation_shape
        self._observation_shape = (channels, height, width)
        self._stack = stack
        self._capacity = config.capacity
        self._device = torch.device(device)

        transition_slots = config.capacity // streams
        frames_kept, frame_bytes = frame_slots(transition_slots, stack), channels // stack * height * width
        needed = replay_bytes(
            config.capacity, observation_shape, action_dim, stack=stack, streams=streams, proprioception=proprioception
        )
        self.storage = choose_storage(config.storage, needed, self._device, directory)
        self.storage_device = self._device if self.storage == "device" else torch.device("cpu")
        self._directory = directory

        # Main memory is allocated page by page as frames arrive: neither branch touches it here.
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
            proprioception=zeros(torch.float32, frames_kept, proprioception),
            action=zeros(torch.float32, transition_slots, action_dim),
            reward=zeros(torch.float32, transition_slots),
            terminated=zeros(torch.bool, transition_slots),
            start_frame=zeros(torch.int64, transition_slots),
            position=zeros(torch.int64, transition_slots),
            range=zeros(torch.int64, 2),
        )
        self._range = rings.range
        # Sampling addresses the slots of all streams as one concatenated range.
        flat = Rings(*(ring.flatten(0, 1) for ring in rings))
        self._frames, self._proprioception = flat.frames, flat.proprioception
        self._action, self._reward, self._terminated = flat.action, flat.reward, flat.terminated
        self._start_frame, self._position = flat.start_frame, flat.position
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
        """Bytes used by the full replay."""
        tensors = [self._frames, self._proprioception, self._action, self._reward, self._terminated]
        tensors += [self._start_frame, self._position]
        return sum(tensor.nbytes for tensor in tensors) + sum(stream.nbytes for stream in self._streams)

    def describe(self) -> str:
        """One line for the log: number of transitions, size and storage."""
        where = {
            "device": f"on {self._device}",
            "memory": "in memory",
            "disk": f"on disk, in {self._directory}",
        }[self.storage]
        return f"replay: {len(self._action):,} transitions, {human_size(self.nbytes)} {where}"

    # ------------------------------------------------------------------ adding

    def start_episode(
        self,
        observation: npt.NDArray[np.uint8],
        *,
        proprioception: npt.NDArray[np.float32] | None = None,
        stream: int = 0,
    ) -> None:
        """Stores an episode's first observation. An episode that is still open counts as truncated.

        Args:
            observation: (stack·C, H, W) uint8, one frame repeated.
            proprioception: (P,), beside the observation; None if P is 0.
            stream: number of the environment.

        Raises:
            ValueError: wrong shape or dtype, a number that is not finite, or an observation that is not one frame
                repeated.
        """
        self._streams[stream].start_episode(observation, proprioception)

    def add(
        self,
        action: npt.ArrayLike,
        reward: float,
        next_observation: npt.NDArray[np.uint8],
        *,
        terminated: bool,
        truncated: bool,
        next_proprioception: npt.NDArray[np.float32] | None = None,
        stream: int = 0,
    ) -> None:
        """Stores one transition of the open episode.

        Args:
            action: (A,), taken at the newest observation.
            reward: the environment's reward for it.
            next_observation: (stack·C, H, W) uint8: the newest observation shifted by one frame.
            terminated: the task ended here, and no value follows.
            truncated: the episode was cut short here.
            next_proprioception: (P,), beside ``next_observation``; None if P is 0.
            stream: number of the environment.

        Raises:
            ValueError: wrong shape or dtype, a number that is not finite, or an observation that is not the previous
                one shifted by one frame. Nothing is stored then.
            RuntimeError: no episode is open.
        """
        ends = {"terminated": terminated, "truncated": truncated}
        self._streams[stream].add(action, reward, next_observation, next_proprioception, **ends)

    def has_open_episode(self, stream: int = 0) -> bool:
        """Whether :meth:`add` can continue this environment's newest episode."""
        return self._streams[stream].has_open_episode

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
        """Samples transitions uniformly, with replacement, including those of unfinished episodes.

        Args:
            batch_size: B.
            generator: the only source of randomness; one on ``storage_device`` spares a transfer.
            discount: discount per agent step, in [0, 1].
            n_step: steps summed into ``Batch.reward``; fewer if the episode, or its stored part, ends sooner.
            future: offsets, in agent steps, of the observations in ``Batch.future``; ``Batch.actions_ahead`` holds the
                actions between them.

        Raises:
            ValueError: an argument is out of range.
            RuntimeError: nothing is stored yet.
        """
        if not len(self):
            raise RuntimeError("the replay has no transitions yet: add some before sampling")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if not 0.0 <= discount <= 1.0:
            raise ValueError(f"discount must lie in [0, 1], got {discount}")
        if n_step < 1:
            raise ValueError(f"n_step must be at least 1, got {n_step}")
        if min(future, default=0) < 0:
            raise ValueError(f"the offsets in future must be 0 or more, got {tuple(future)}")

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
            proprioception=self._beside(stream, frame),
            next_proprioception=self._beside(stream, frame + steps),
        )

    def _place(self, share: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Maps (B,) fractions in [0, 1) of all stored transitions to stream, transition, and the end of the stream."""
        oldest, end = self._range.unbind(1)
        before = (end - oldest).cumsum(0)  # transitions in this stream and those before it
        place = (share * before[-1]).long()  # in float64, always below the sum
        stream = torch.searchsorted(before, place, right=True)
        return stream, end[stream] - (before[stream] - place), end[stream]

    def _gather(self, stream: Tensor, frame: Tensor, position: Tensor) -> Tensor:
        """(B, stack·C, H, W) on the agent's device: the observations at frames (B,) with these positions (B,)."""
        back = torch.minimum(position[:, None], self._stack_offsets)
        slots = (stream[:, None] * self._frame_slots + (frame[:, None] - back) % self._frame_slots).flatten()
        shape = (len(slots), self._frames.shape[1])
        # index_select copies whole rows at memory bandwidth; advanced indexing is 5 to 8 times slower on a CPU.
        frames = torch.empty(shape, dtype=torch.uint8, device=self.storage_device, pin_memory=self._sends_to_gpu)
        torch.index_select(self._frames, 0, slots, out=frames)
        return self._sent(frames.view(len(frame), *self._observation_shape))

    def _beside(self, stream: Tensor, frame: Tensor) -> Tensor | None:
        """(B, P) on the agent's device: the proprioception beside the frames (B,). None if P is 0."""
        if not self._proprioception.shape[1]:
            return None
        slots = stream * self._frame_slots + frame % self._frame_slots
        return self._sent(self._proprioception.index_select(0, slots))

    @property
    def _sends_to_gpu(self) -> bool:
        return self.storage_device != self._device and self._device.type == "cuda"

    def _sent(self, numbers: Tensor) -> Tensor:
        """Sends a tensor to the agent's device.

        Copies to a GPU from pinned memory, so that sampling waits neither for the copy nor for the previous update.
        PyTorch's allocator holds the memory until the copy is done.
        """
        if not self._sends_to_gpu:
            return numbers.to(self._device)
        return numbers.pin_memory().to(self._device, non_blocking=True)  # no copy if already pinned

    # ----------------------------------------------------------- checkpointing

    def save(self, directory: Path) -> dict[str, Any]:
        """Writes everything new since the last save, and returns a manifest for ``restore``.

        New frames and transitions go into files ``segment-<first frame>-<last frame>.safetensors`` (with several
        streams, ``segment-<stream>-…``); the manifest also lists earlier files that still hold live data. Files are
        written atomically: under a temporary name, synced and renamed.

        Args:
            directory: directory of the segments; created if absent. Files not listed in a kept manifest may be deleted.

        Returns:
            A JSON-serializable manifest; ``segment_files`` returns the names of its files.

        Raises:
            OSError: writing failed. The temporary file is removed, and earlier manifests stay valid.
        """
        directory = own_folder(directory.parent, directory.name).resolve()
        streams = [stream.save(directory) for stream in self._streams]
        return {"format": _MANIFEST_FORMAT, **self._layout(), "streams": streams}

    def restore(self, directory: Path, manifest: dict[str, Any], *, salvage: bool = False) -> int:
        """Restores a saved replay: from here on, the same calls give the same results.

        The storage and the device may differ from the saved replay's.

        Args:
            directory: directory of the segments.
            manifest: the return value of ``save``.
            salvage: do without segments that are damaged or missing. The transitions in them, and those that lack one
                of their frames, are lost, and so is the open episode of their stream.

        Returns:
            The number of lost transitions.

        Raises:
            ValueError: the manifest has another capacity, shape or number of streams, or a segment is damaged. The
                replay is then empty or unchanged, and can be restored from an older manifest.
            OSError: a segment is missing or cannot be read; likewise.
        """
        if manifest["format"] not in (1, _MANIFEST_FORMAT):
            raise ValueError(f"the replay manifest's format must be 1 or {_MANIFEST_FORMAT}, got {manifest['format']}")
        saved_layout = {"proprioception": 0, **manifest}  # older manifests have no such field
        for name, here in self._layout().items():
            if saved_layout[name] != here:
                raise ValueError(f"replay {name} must be the checkpoint's, {saved_layout[name]}, got {here}")
        streams = _streams(manifest)
        if len(streams) != len(self._streams):
            raise ValueError(
                f"replay must have as many streams as the checkpoint, {len(streams)}, got {len(self._streams)}"
            )
        directory = directory.resolve()
        for stream in self._streams:
            stream.clear()
        try:
            pairs = zip(self._streams, streams, strict=True)
            return sum(stream.restore(directory, saved, salvage=salvage) for stream, saved in pairs)
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
            "proprioception": self._proprioception.shape[1],
        }


def replay_bytes(
    capacity: int,
    observation_shape: Sequence[int],
    action_dim: int,
    *,
    stack: int,
    streams: int = 1,
    proprioception: int = 0,
) -> int:
    """Bytes used by a replay of these sizes; the arguments are those of :class:`Replay`."""
    channels, height, width = observation_shape
    slots = capacity // streams
    frames = frame_slots(slots, stack) * ((channels // stack) * height * width + 4 * proprioception)
    transition = 4 * action_dim + 4 + 1 + 8 + 8  # action, reward, terminated, start frame, position
    return streams * (frames + slots * transition)


def segment_files(manifest: dict[str, Any]) -> list[str]:
    """Names of the segment files that ``Replay.restore`` needs for this manifest."""
    return [segment["file"] for stream in _streams(manifest) for segment in stream["segments"]]


def _streams(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """The entry of each stream; a manifest of format 1 has a single stream and no list."""
    return [manifest] if manifest["format"] == 1 else manifest["streams"]
