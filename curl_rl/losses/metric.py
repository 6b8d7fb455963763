"""Losses with a margin: triplets mined from the batch."""

from __future__ import annotations

import torch
from torch import Tensor

from curl_rl.losses.contrastive import PairScores


def semi_hard_triplet(scores: PairScores, margin: float) -> Tensor:
    """Margin triplet loss max(n − p + margin, 0) (SimCLR, arXiv 2002.05709, table 2) on the semi-hard negative.

    The semi-hard negative of a query is the most similar of those that are less similar than its positive, but by less
    than the margin (Schroff et al. 2015, arXiv 1503.03832, equation 4); a query without one counts as 0 in the mean.
    """
    # One that is less similar by more than the margin costs nothing anyway.
    too_hard = scores.negatives >= scores.positive[:, None]
    hardest = scores.negatives.masked_fill(too_hard, -torch.inf).amax(1)
    return (hardest - scores.positive + margin).relu().mean()
