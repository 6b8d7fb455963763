"""The classes of a batch's samples: their labels, or, without labels, each sample its own class."""

from __future__ import annotations

import torch
from torch import Tensor

from curl_rl.objectives.base import DataSpec


def two_view_classes(samples: int, labels: Tensor | None, device: torch.device) -> Tensor:
    """``(2B,)`` classes of the two views of each of B samples, the first views first.

    Args:
        samples: B.
        labels: ``(B,)`` integers; None for a class for each sample. So has a sample with a negative label, which stands
            for none.
        device: the device of the result.

    Raises:
        ValueError: fewer than 2 samples, so there are no negatives; or not one label for each.
    """
    if samples < 2:
        raise ValueError(f"negatives from the batch need at least 2 samples in a batch (batch_size), got {samples}")
    own = -1 - torch.arange(samples, device=device)
    if labels is None:
        return own.repeat(2)
    if labels.shape != own.shape:
        raise ValueError(f"labels must be ({samples},), one for each sample, got {tuple(labels.shape)}")
    return torch.where(labels < 0, own, labels).repeat(2)


def refuse_one_class(method: str, data: DataSpec, instead: str) -> None:
    """Refuses labels that are all the same: nothing would keep the embeddings apart.

    Raises:
        ValueError: there is only one class.
    """
    if data.classes is not None and data.classes < 2:
        raise ValueError(f"{method} needs at least 2 classes, got {data.classes}: take {instead}")
