"""The loss of contrastive predictive coding: a bilinear form for each step ahead, and their mean InfoNCE."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from curl_rl.losses import bilinear_similarity, contrastive_accuracy, embedding_std, info_nce, softmax_confidence
from curl_rl.objectives.base import Result


class StepwiseContrast(nn.Module):
    """Scores contexts against what follows them, k = 1 to K steps ahead (arXiv 1807.03748, equations 3 and 4).

    Args:
        dim: D, the size of contexts and embeddings.
        steps: K.
    """

    W: nn.Parameter
    """``(K, D, D)``. It starts as CURL's: the cosine of layer-normalized vectors times √D."""

    def __init__(self, dim: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.W = nn.Parameter((torch.eye(dim) / dim**0.5).repeat(steps, 1, 1))

    def forward(self, pairs: Sequence[tuple[Tensor, Tensor]], embeddings: Tensor) -> Result:
        """The loss and its metrics.

        Args:
            pairs: for each step ``(N, D)`` contexts and ``(N, D)`` embeddings; row i of one belongs to row i of the
                other, and all others are its negatives. N may differ between steps.
            embeddings: ``(B, D)``, for ``embedding_std``.
        """
        steps = zip(self.W, pairs, strict=True)
        logits = [bilinear_similarity(context, form, later) for form, (context, later) in steps]
        loss = torch.stack([info_nce(scores) for scores in logits]).mean()
        detached = [scores.detach() for scores in logits]
        metrics = {
            "accuracy": torch.stack([contrastive_accuracy(scores) for scores in detached]).mean(),
            "accuracy_farthest": contrastive_accuracy(detached[-1]),
            "confidence": torch.stack([softmax_confidence(scores) for scores in detached]).mean(),
            "logits_std": torch.stack([scores.std(1).mean() for scores in detached]).mean(),
            "embedding_std": embedding_std(embeddings),
        }
        return Result(loss, metrics)
