"""Pictures of the agent's observations."""

from __future__ import annotations

import torch
from torch import Tensor

from curl_rl.augment import center_crop, random_crops
from curl_rl.rl.agent import Agent, UpdateInputs
from curl_rl.rl.replay import Batch
from curl_rl.rl.saliency import Saliency

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


def seen_picture(agent: Agent, observations: Tensor, generator: torch.Generator) -> Tensor:
    """A picture of what the encoder sees of some observations, ``(N, C, H, W)`` uint8 on the CPU.

    One row per observation: its newest frame whole; its center crop, on which the agent acts; two random crops, from
    which it learns.

    Returns:
        ``(3, height, width)`` uint8.
    """
    size, every = agent.config.crop, agent.config.every_crop_offset
    views = [center_crop(observations, size), *random_crops(observations, size, generator, 2, every_offset=every)]
    height = observations.shape[-2]
    columns = [
        _side_by_side(_newest(view[i]), height) for i in range(len(observations)) for view in (observations, *views)
    ]
    rows = [torch.cat(columns[i : i + 4], dim=2) for i in range(0, len(columns), 4)]
    return torch.cat([torch.nn.functional.pad(row, (0, 0, 0, _GAP)) for row in rows], dim=1)


def saliency_picture(observations: Tensor, found: Saliency) -> Tensor:
    """A picture of the saliency of some observations, ``(N, C, H, W)`` uint8 on the CPU.

    One column per observation: its newest frame; the same in gray, with what the actor reacts to in red; and what the
    critics react to. Each map is scaled to its own strongest pixels.

    Returns:
        ``(3, height, width)`` uint8.
    """
    frames = torch.stack([_side_by_side(_newest(one), one.shape[-2]) for one in observations]).float()
    gray = torch.nn.functional.pad(frames[..., :-_GAP].mean(1, keepdim=True), (0, _GAP))
    rows = [frames]
    for one in found:
        one = one.float().cpu()
        strongest = one.flatten(1).quantile(0.995, dim=1).clamp_min(torch.finfo(one.dtype).tiny)
        heat = torch.nn.functional.pad((one / strongest[:, None, None]).clamp(max=1), (0, _GAP))[:, None]
        red = torch.tensor([255.0, 60.0, 30.0])[:, None, None]
        rows.append(gray * (1 - heat) + red * heat)
    columns = [torch.nn.functional.pad(torch.cat(list(row), dim=2), (0, 0, 0, _GAP)) for row in rows]
    return torch.cat(columns, dim=1).round().to(torch.uint8)


def _newest(stack: Tensor) -> Tensor:
    """The newest frame of a ``(C, h, w)`` stack: the last three channels if they divide by three, else the last."""
    return stack[-3:] if len(stack) % 3 == 0 else stack[-1:]
