"""The contrast of two kinds of embeddings with each other, in both directions (CLIP, arXiv 2103.00020, figure 3)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from curl_rl.losses.contrastive import info_nce
from curl_rl.losses.half_precision import widened


def symmetric_info_nce(logits: Tensor, same: Tensor | None = None) -> Tensor:
    """The mean of the contrastive loss of the rows of ``(B, B)`` logits and of that of their columns.

    Args:
        logits: similarities of B images to B captions; those on the diagonal belong together.
        same: ``(B, B)`` booleans, equal across the diagonal: the images and captions that belong together, at least one
            in each row. Each of them has an even share of the target
            (:func:`~curl_rl.losses.shared_info_nce`). None: those on the diagonal.

    Returns:
        A scalar.
    """
    if same is None:
        return (info_nce(logits) + info_nce(logits.T)) / 2
    logits = widened(logits)
    own = same.to(logits.dtype)
    count = own.sum(1)
    # Both directions from matrices as they lie in memory: a transpose would be copied, forwards and backwards.
    rows = (own / count[:, None] * F.log_softmax(logits, 1)).sum()
    columns = (own / count * F.log_softmax(logits, 0)).sum()
    return -(rows + columns) / (2 * len(logits))
