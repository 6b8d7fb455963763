"""Losses without negatives that predict one view's embedding from another's (BYOL, SimSiam)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from curl_rl.losses.half_precision import widened


def negative_cosine(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean of −cos between ``(B, D)`` predictions and ``(B, D)`` targets, a scalar (SimSiam, 2011.10566, equation 1).

    ``2 + 2 * negative_cosine(q, z)`` is the squared distance of the normalized vectors (BYOL, 2006.07733, equation 2).
    """
    return -F.cosine_similarity(widened(prediction), widened(target)).mean()


def cross_prediction(predictions: list[Tensor], targets: list[Tensor]) -> Tensor:
    """Mean :func:`negative_cosine` between each view's prediction and each other view's target, a scalar in [-1, 1].

    BYOL and SimSiam compare two views in both directions. With multi-crop (Caron et al. 2020, arXiv 2006.09882, section
    3.2) there are more predicting views than targets.

    Args:
        predictions: ``(B, D)`` for views 0, 1, 2 and so on.
        targets: ``(B, D)`` for the first few of these views.
    """
    pairs = [(i, j) for i in range(len(predictions)) for j in range(len(targets)) if i != j]
    return torch.stack([negative_cosine(predictions[i], targets[j]) for i, j in pairs]).mean()
