"""Pictures of the images and views of a pretraining run."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_GAP = 2


def views_picture(images: Tensor, views: Sequence[Tensor], samples: int = 8) -> Tensor:
    """Draws some images next to their views, one row per image.

    Args:
        images: ``(B, 3·S, H, W)`` uint8; of a stack, the newest frame is shown.
        views: ``(B, 3·S, h, w)`` each, floating point in [0, 1].
        samples: maximum number of rows.

    Returns:
        ``(3, height, width)`` uint8 on the CPU.
    """
    columns = [images[:samples, -3:].cpu()]
    columns += [(view[:samples, -3:].float().cpu() * 255).round().clamp(0, 255).to(torch.uint8) for view in views]
    height = max(column.shape[-2] for column in columns) + _GAP
    padded = [F.pad(column, (0, _GAP, 0, height - column.shape[-2])) for column in columns]
    return torch.cat(list(torch.cat(padded, dim=3)), dim=1)
