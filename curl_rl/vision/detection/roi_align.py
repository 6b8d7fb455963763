"""RoIAlign: the features in a box, sampled on a grid of fixed size (Mask R-CNN, He et al. 2017, arXiv 1703.06870)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def roi_align(maps: Tensor, boxes: Tensor, stride: int, size: int, samples: int = 2) -> Tensor:
    """The mean of ``samples``² bilinear samples in each of ``size``² equal bins of every box.

    Sampled by :func:`torch.nn.functional.grid_sample`, which is fast on every device and differentiable in the maps. A
    sample beyond the centers of the outermost places takes the value of the nearest.

    Args:
        maps: ``(B, C, h, w)``; place (i, j) covers the pixels from ``stride``·(i, j) on, ``stride`` of them each way.
        boxes: ``(B, N, 4)`` in pixels of the image; where one is NaN, as it is once a network has diverged, the
            center of the map is sampled in its place.
        stride: pixels of the image between places of the map.
        size: bins on each side.
        samples: samples on each side of a bin.

    Returns:
        ``(B, N, C, size, size)``.
    """
    b, n = boxes.shape[:2]
    channels, height, width = maps.shape[1:]
    points = size * samples
    at = (torch.arange(points, dtype=boxes.dtype, device=boxes.device) + 0.5) / points
    corner, extent = boxes[..., :2] / stride, (boxes[..., 2:] - boxes[..., :2]) / stride
    places = corner[:, :, None] + extent[:, :, None] * at[:, None]  # (B, N, points, 2)
    # grid_sample's coordinates run from -1, the outer edge of the first place, to 1, that of the last one. On a CPU its
    # backward pass writes outside its memory at coordinates that are NaN.
    x, y = (
        (2 * places[..., axis] / length - 1).nan_to_num().to(maps.dtype) for axis, length in enumerate((width, height))
    )
    grid = torch.stack(
        [x[:, :, None, :].expand(b, n, points, points), y[:, :, :, None].expand(b, n, points, points)], -1
    )
    sampled = F.grid_sample(
        maps, grid.reshape(b, n * points, points, 2), mode="bilinear", padding_mode="border", align_corners=False
    )
    if samples > 1:
        sampled = F.avg_pool2d(sampled, samples)  # rows of one box stay together: samples divides points
    return sampled.view(b, channels, n, size, size).transpose(1, 2)
