"""Pictures of the agent's observations."""

from __future__ import annotations

import torch
from torch import Tensor

from curl_rl.rl.agent import UpdateInputs
from curl_rl.rl.replay import Batch

_GAP = 2


def crops_picture(batch: Batch, inputs: UpdateInputs, samples: int = 4) -> Tensor:
    """A picture of some frame stacks of a batch, each with the crops that the update drew from it.

    One row per sample: the stacked frames, oldest first; the frames of the critic's crop (the query); then those of
    each further view (the key).

    Returns:
        ``(3, H, W)`` uint8 on the CPU.
    """
    views = [batch.observation, inputs.observation, *inputs.views.values()]
    height = batch.observation.shape[-2]
    rows = []
    for i in range(min(samples, len(batch.observation))):
        panels = [_side_by_side(view[i].cpu(), height) for view in views]
        rows.append(torch.cat([torch.nn.functional.pad(panel, (0, 3 * _GAP, 0, _GAP)) for panel in panels], dim=2))
    return torch.cat(rows, dim=1)


def _side_by_side(stack: Tensor, height: int) -> Tensor:
    """``(C, h, w)`` frames in a row, ``(3, height, ·)``: RGB if the channels divide by three, else gray."""
    frames = stack.split(3) if len(stack) % 3 == 0 else [frame.expand(3, -1, -1) for frame in stack.split(1)]
    below = height - stack.shape[-2]
    return torch.cat([torch.nn.functional.pad(frame, (0, _GAP, 0, below)) for frame in frames], dim=2)
