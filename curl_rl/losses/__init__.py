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
    class_accuracy,
    contrastive_accuracy,
    effective_rank,
    embedding_std,
    pair_accuracy,
    softmax_confidence,
    uniformity,
)
from curl_rl.losses.metric import (
    MarginLoss,
    Mining,
    n_pair,
    pair_margin,
    semi_hard_triplet,
    squared_distances,
    supervised_nt_xent,
    triplet,
)
from curl_rl.losses.prediction import cross_prediction, negative_cosine

__all__ = [
    "MarginLoss",
    "Mining",
    "PairScores",
    "alignment",
    "bank_scores",
    "bilinear_similarity",
    "class_accuracy",
    "cluster_accuracy",
    "cluster_cross_entropy",
    "contrastive_accuracy",
    "cross_correlation",
    "cross_prediction",
    "effective_rank",
    "embedding_std",
    "info_nce",
    "n_pair",
    "negative_cosine",
    "nt_logistic",
    "nt_xent",
    "pair_accuracy",
    "pair_margin",
    "redundancy",
    "semi_hard_triplet",
    "sinkhorn",
    "softmax_confidence",
    "squared_distances",
    "supervised_nt_xent",
    "swapped_accuracy",
    "swapped_prediction",
    "triplet",
    "two_view_scores",
    "uniformity",
    "used_share",
]
