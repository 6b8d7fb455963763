"""Observations from recorded frames as an image set: stacks of an episode's frames, without classes."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from curl_rl.recordings.store import RecordedFrames, stack_indices
from curl_rl.runs.errors import UserError
from curl_rl.vision.data.image_sets import ImageBatch, ImageSet, Split, Storage, lies_in_memory


class RecordedStacks(ImageSet):
    """Frame stacks, ``(stack·C, S, S)`` each, in the order of the recording; each frame is stored once.

    Args:
        recorded: the recording.
        chosen: ``(N,)`` int64, the newest frame of each observation.
        stack: frames per observation.
        device: device of the batches.
        resident: keep all frames on the device; False reads them from the files on demand.
    """

    def __init__(
        self, recorded: RecordedFrames, chosen: Tensor, stack: int, device: torch.device, *, resident: bool
    ) -> None:
        r = recorded.recording
        super().__init__(str(recorded.folder), len(chosen), r.size, (), None, device)
        self.channels = stack * r.channels
        self.action_dim = r.action_size
        self.provenance = {
            "env": r.env,
            "policy": r.policy,
            "recorded_frames": len(recorded),
            "action_repeat": r.action_repeat,
            "stack": stack,
        }
        self.identity = f"{len(recorded)} frames of {r.env}, seed {r.seed}, by {r.policy}, {r.size} pixels, {r.quality}"
        if r.camera is not None:
            self.provenance["camera"] = r.camera
            self.identity += f", camera {r.camera}"
        self._recorded, self._stack = recorded, stack
        self._offsets: tuple[int, ...] = ()
        self._steps = 0
        # The index is stored with the pixels, so that a step needs no copy between host and device.
        where = device if resident else torch.device("cpu")
        self._chosen, self._starts, self._ends = (t.to(where) for t in (chosen, recorded.starts, recorded.ends))
        self._actions = recorded.actions.to(where)
        self._pixels = recorded.frames(torch.arange(len(recorded))).to(device) if resident else None

    def ahead(self, offsets: Sequence[int], actions: int = 0) -> RecordedStacks:
        """See :meth:`ImageSet.ahead`."""
        same = copy.copy(self)  # shares the pixels
        same._offsets, same._steps = tuple(offsets), actions
        return same

    def _read(self, batches: list[Tensor], fill: bool) -> Iterator[ImageBatch]:
        sizes = [len(batch) for batch in batches]
        everything = torch.cat([torch.empty(0, dtype=torch.int64), *batches])
        there = everything.to(self.device)
        here = everything if self._pixels is None else there
        for positions, indices in zip(here.split(sizes), there.split(sizes), strict=True):
            newest = self._chosen[positions]
            ends = self._ends[newest]
            later = {offset: self._stacks(torch.minimum(newest + offset, ends)) for offset in self._offsets}
            actions = self._actions_from(newest, ends) if self._steps else None
            yield ImageBatch(self._stacks(newest), None, indices, later, actions)

    def _actions_from(self, newest: Tensor, ends: Tensor) -> Tensor:
        """``(B, K, A)`` on the device: the actions at these frames and the next frames of their episodes."""
        places = newest[:, None] + torch.arange(self._steps, device=newest.device)
        taken = places <= ends[:, None]
        actions = self._actions[torch.minimum(places, ends[:, None])] * taken[:, :, None]
        return actions.to(self.device)

    def _stacks(self, newest: Tensor) -> Tensor:
        """``(B, stack·C, S, S)`` on the device: the observations with these newest frames."""
        places = stack_indices(newest, self._starts[newest], self._stack).flatten()
        frames = self._recorded.frames(places) if self._pixels is None else self._pixels[places]
        return frames.unflatten(0, (-1, self._stack)).flatten(1, 2).to(self.device)


def load_stacks(
    folder: str | Path,
    split: Split = "train",
    *,
    stack: int = 3,
    device: torch.device | str = "cpu",
    storage: Storage = "auto",
) -> RecordedStacks:
    """Loads the observations of a folder of recorded frames.

    Args:
        folder: in the format of :mod:`curl_rl.recordings.store`.
        split: test: the held-out episodes (:attr:`RecordedFrames.held_out`); train: all others.
        stack: frames per observation.
        device: device of the batches.
        storage: memory: all frames on the device. stream: read them from the files in every epoch. auto: memory, if
            they take at most a quarter of the free memory.

    Raises:
        UserError: the folder is damaged, ``stack`` is below 1, the recording has no held-out episode or fewer than two
            observations, or the frames do not fit into memory.
    """
    if stack < 1:
        raise UserError(f"frames.stack must be at least 1, got {stack}")
    recorded, device = RecordedFrames(folder), torch.device(device)
    held_out = recorded.held_out
    chosen = (held_out if split == "test" else ~held_out).nonzero().flatten()
    if split == "test" and not len(chosen):
        raise UserError(f"{folder} has only one episode, so none is held out for testing: record more frames")
    if len(chosen) < 2:
        raise UserError(f"{folder} has {len(chosen)} observations, but at least 2 are needed: record more frames")
    r = recorded.recording
    needed = len(recorded) * r.channels * r.size * r.size
    resident = lies_in_memory(storage, needed, device, f"{len(recorded):,} frames of {r.size}×{r.size}", "")
    return RecordedStacks(recorded, chosen, stack, device, resident=resident)
