"""Metric learning: losses of pairs and triplets of a batch, of the same class or of different ones."""

from __future__ import annotations

import torch
from torch import Tensor

from curl_rl.losses.contrastive import PairScores
from curl_rl.losses.half_precision import widened


def semi_hard_triplet(scores: PairScores, margin: float) -> Tensor:
    """Triplet loss max(n − p + margin, 0) on the semi-hard negative (SimCLR, arXiv 2002.05709, table 2), a scalar.

    A semi-hard negative is less similar than the positive, but by less than the margin (Schroff et al. 2015,
    arXiv 1503.03832, equation 4); the most similar one counts. A query without one contributes 0 to the mean.
    """
    # Negatives that are less similar by more than the margin cost nothing anyway.
    too_hard = scores.negatives >= scores.positive[:, None]
    hardest = scores.negatives.masked_fill(too_hard, -torch.inf).amax(1)
    return (hardest - scores.positive + margin).relu().mean()


def supervised_nt_xent(similarity: Tensor, classes: Tensor, temperature: float) -> Tensor:
    """NT-Xent whose positives are all other embeddings of the class (SupCon, arXiv 2004.11362, equation 2: L_out).

    With s the similarities of an anchor over the temperature, it is the mean over its positives p of
    −log(exp(s_p) / Σ exp(s)), where the sum runs over all other embeddings, positives included. Anchors without a
    positive are left out. The released code's factor, temperature / 0.07, is not included.

    Args:
        similarity: ``(N, N)`` inner products of N ≥ 2 embeddings, in the paper of length 1.
        classes: ``(N,)`` integers.
        temperature: above 0.

    Returns:
        The mean over the anchors, a scalar; 0 if no class occurs twice.

    Raises:
        ValueError: fewer than 2 embeddings.
    """
    if len(similarity) < 2:
        raise ValueError(f"similarity must be of at least 2 embeddings, got {len(similarity)}")
    scores = widened(similarity) / temperature
    itself = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    log_probability = scores - scores.masked_fill(itself, -torch.inf).logsumexp(1, keepdim=True)
    positive = (classes == classes[:, None]) & ~itself
    count = positive.sum(1)
    losses = -log_probability.masked_fill(~positive, 0).sum(1) / count.clamp_min(1)
    return losses.sum() / (count > 0).sum().clamp_min(1)
