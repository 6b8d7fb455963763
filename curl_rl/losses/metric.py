"""Margin losses on triplets mined from the batch."""

from __future__ import annotations

import torch
from torch import Tensor

from curl_rl.losses.contrastive import PairScores


def semi_hard_triplet(scores: PairScores, margin: float) -> Tensor:
    """Triplet loss max(n − p + margin, 0) on the semi-hard negative (SimCLR, arXiv 2002.05709, table 2), a scalar.

    A semi-hard negative is less similar than the positive, but by less than the margin (Schroff et al. 2015,
    arXiv 1503.03832, equation 4); the most similar one counts. A query without one contributes 0 to the mean.
    """
    # Negatives that are less similar by more than the margin cost nothing anyway.
    too_hard = scores.negatives >= scores.positive[:, None]
    hardest = scores.negatives.masked_fill(too_hard, -torch.inf).amax(1)
    return (hardest - scores.positive + margin).relu().mean()
