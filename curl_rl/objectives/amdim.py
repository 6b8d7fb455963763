"""Augmented multiscale Deep InfoMax (Bachman et al. 2019, arXiv 1906.00910).

Deep InfoMax between two augmented views: the vector of one must tell the places of the other view's maps, at two
scales, from those of other images; and so must each place of its last map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from curl_rl.encoders import Features, FeatureSpec
from curl_rl.encoders.heads import BatchNorm, ResidualHead
from curl_rl.losses import alignment, embedding_std, place_accuracy, place_info_nce, place_scores, soft_clip
from curl_rl.losses.half_precision import widened
from curl_rl.objectives.base import BatchInfo, Objective, Result, ViewSpec
from curl_rl.objectives.method import Method
from curl_rl.ranges import at_least, check_ranges, positive


@dataclass(frozen=True)
class AMDIMConfig:
    """Scores and places of AMDIM. The defaults are the released code's."""

    clip: Annotated[float, positive] = 20.0
    """Bound of the scores, which approach it softly."""
    regularization: Annotated[float, at_least(0)] = 0.04
    """Weight of the mean square of the scores, before they are clipped."""
    pool: Annotated[int, at_least(1)] = 8
    """Largest side of a map, in places. A larger map is averaged over regions first: the time for its places with each
    other grows with the fourth power of the side."""

    def __post_init__(self) -> None:
        check_ranges(self, "objectives.amdim")


class _Embedded(NamedTuple):
    """One view's vector and places, all of the vector's size."""

    vector: Tensor
    """``(B, D)``."""
    map: Tensor
    """``(P, B, D)``."""
    middle: Tensor | None
    """``(Q, B, D)``, if the encoder has a middle map."""


class AMDIM(Objective):
    """Information of a view's vector about the other view's maps, and of the places of both last maps about each other.

    Without a middle map, its term is left out.

    Raises:
        ValueError: in ``forward``, the batch has 1 sample.
    """

    online_views = (ViewSpec(0), ViewSpec(1))
    reads_maps = True

    def __init__(self, features: FeatureSpec, config: AMDIMConfig = AMDIMConfig()) -> None:
        super().__init__()
        self.config = config
        dim = features.dim
        # The released encoder ends in this norm; the encoders here end in a mean or a layer norm.
        self.vector_norm = BatchNorm(dim, scale=True, shift=True)
        self.map_block = ResidualHead(features.map_shape[0], dim, norm="batch", zero=True)
        middle = features.middle_shape
        self.middle_block = None if middle is None else ResidualHead(middle[0], dim, norm="batch", zero=True)

    def forward(self, online: list[Features], target: list[Features], batch: BatchInfo) -> Result:
        first, second = (self._embed(view) for view in online)
        losses, accuracies = [], []
        for one, other in ((first, second), (second, first)):
            to_map = self._scores(one.vector, other.map)
            accuracies.append(place_accuracy(to_map.detach(), same_place=False))
            # (S, 1, B, D) and (P, B, D): each place of one map with each of the other.
            all_scores = [to_map, self._scores(one.map.unsqueeze(1), other.map)]
            if other.middle is not None:
                all_scores.append(self._scores(one.vector, other.middle))
            losses += [self._loss(scores) for scores in all_scores]
        vectors = [widened(view.vector.detach()) for view in (first, second)]
        metrics = {
            "accuracy": torch.stack(accuracies).mean(),
            "embedding_std": embedding_std(vectors[0]),
            "alignment": alignment(vectors[0], vectors[1]),
        }
        return Result(torch.stack(losses).sum() / 2, metrics)

    def _embed(self, view: Features) -> _Embedded:
        # One view at a time: batch norm takes its statistics over each view separately, as in the released code.
        middle = None
        if self.middle_block is not None:
            assert view.middle is not None
            middle = self._places(view.middle.to(view.vector.dtype), self.middle_block)
        return _Embedded(self.vector_norm(view.vector), self._places(view.map, self.map_block), middle)

    def _places(self, feature_map: Tensor, block: ResidualHead) -> Tensor:
        """``(B, C, h, w)`` to ``(P, B, D)``."""
        height, width = (min(side, self.config.pool) for side in feature_map.shape[2:])
        places = F.adaptive_avg_pool2d(feature_map, (height, width)).flatten(2).permute(2, 0, 1)
        return block(places.flatten(0, 1)).unflatten(0, places.shape[:2])

    def _scores(self, queries: Tensor, places: Tensor) -> Tensor:
        return place_scores(queries, places) / places.shape[-1] ** 0.5

    def _loss(self, scores: Tensor) -> Tensor:
        clipped = soft_clip(scores, self.config.clip)
        return place_info_nce(clipped, same_place=False) + self.config.regularization * scores.square().mean()


METHOD = Method(
    "amdim",
    AMDIM,
    AMDIMConfig,
    paper="Bachman et al. 2019, arXiv 1906.00910",
    summary="Information of a view's vector and places about the places of the other view's maps.",
)
