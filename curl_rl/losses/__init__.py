"""Self-supervised losses and measures of embeddings: pure functions of tensors."""

from curl_rl.losses.clustering import (
    cluster_accuracy,
    cluster_cross_entropy,
    sinkhorn,
    swapped_accuracy,
    swapped_prediction,
    used_share,
)
from curl_rl.losses.contrastive import (
    PairScores,
    bank_scores,
    bilinear_similarity,
    info_nce,
    nt_logistic,
    nt_xent,
    two_view_scores,
)
from curl_rl.losses.decorrelation import cross_correlation, redundancy
from curl_rl.losses.diagnostics import (
    alignment,
    contrastive_accuracy,
    effective_rank,
    embedding_std,
    pair_accuracy,
    softmax_confidence,
    uniformity,
)
from curl_rl.losses.metric import semi_hard_triplet
from curl_rl.losses.prediction import cross_prediction, negative_cosine

__all__ = [
    "PairScores",
    "alignment",
    "bank_scores",
    "bilinear_similarity",
    "cluster_accuracy",
    "cluster_cross_entropy",
    "contrastive_accuracy",
    "cross_correlation",
    "cross_prediction",
    "effective_rank",
    "embedding_std",
    "info_nce",
    "negative_cosine",
    "nt_logistic",
    "nt_xent",
    "pair_accuracy",
    "redundancy",
    "semi_hard_triplet",
    "sinkhorn",
    "softmax_confidence",
    "swapped_accuracy",
    "swapped_prediction",
    "two_view_scores",
    "uniformity",
    "used_share",
]
