"""Recognition of each image by its row among the rows of a bank: the part that InstDisc and CMC share."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from curl_rl.losses import PairScores, bank_scores, log_mean_exp, nce, nt_xent
from curl_rl.losses.half_precision import widened
from curl_rl.objectives.banks import Table

# The released code keeps the normalizer of the first batch, which fits the untrained network alone; a moving average
# follows the training (0.99: HobbitLong/CMC, issue 23).
_NORMALIZER_MOMENTUM = 0.99


def scores_against_bank(
    bank: Table, queries: Tensor, stand_in: Tensor, indices: Tensor, compared: int, steps: Tensor
) -> tuple[PairScores, Tensor]:
    """Scores of queries with their image's row and with a part of the others'; the parts take turns.

    Args:
        bank: one row per image.
        queries: ``(B, D)`` unit vectors.
        stand_in: ``(B, D)`` detached unit vectors, in place of rows that are not known yet.
        indices: ``(B,)``, the queries' images.
        compared: number of rows to compare with.
        steps: number of steps taken, a scalar integer, which decides the part.

    Returns:
        The scores, and the ``(B, D)`` rows that are the positives.
    """
    own = torch.where(bank.known[indices, None], widened(bank.embeddings[indices]), stand_in)
    others = bank.window(compared, steps * compared)
    is_negative = others.known & (others.indices != indices[:, None])
    return bank_scores(queries, own, others.embeddings, is_negative), own


def recognition_loss(
    scores: PairScores, temperature: float, steps: Tensor, log_normalizer: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """A softmax over the scores or, with a normalizer, its noise-contrastive estimate.

    Args:
        scores: of :func:`scores_against_bank`.
        temperature: above 0.
        steps: number of steps taken, a scalar integer; the first estimates its own normalizer.
        log_normalizer: a scalar (``losses.nce``), or None for the softmax.

    Returns:
        The loss, and this step's estimate of the normalizer if there is one.
    """
    if log_normalizer is None:
        return nt_xent(scores, temperature), None
    newest = log_mean_exp(scores, temperature)
    return nce(scores, temperature, torch.where(steps > 0, log_normalizer, newest)), newest


def move_normalizer(log_normalizer: Tensor, newest: Tensor, steps: Tensor) -> None:
    """Moves the average of the normalizer, in place, toward this step's estimate; the first replaces it."""
    keep = _NORMALIZER_MOMENTUM
    average = torch.logaddexp(log_normalizer + math.log(keep), newest + math.log(1 - keep))
    log_normalizer.copy_(torch.where(steps > 0, average, newest))
