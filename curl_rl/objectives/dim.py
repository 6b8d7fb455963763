"""Deep InfoMax (Hjelm et al. 2018, arXiv 1808.06670), and ST-DIM, the same in time (Anand et al., arXiv 1906.08226).

An image's vector must tell the places of the image's own feature map from those of other images. It needs no
augmentation, a single view. ST-DIM tells the places of the next observation's map instead: from the vector, and from
the same place of the present map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curl_rl.encoders import Features, FeatureSpec
from curl_rl.encoders.heads import ResidualHead
from curl_rl.losses import (
    donsker_varadhan,
    embedding_std,
    jensen_shannon,
    place_accuracy,
    place_info_nce,
    place_scores,
)
from curl_rl.objectives.base import BatchInfo, Objective, Result, ViewSpec
from curl_rl.objectives.method import Method
from curl_rl.ranges import at_least, check_ranges, zero_or_more


@dataclass(frozen=True)
class DIMConfig:
    """Estimator and heads of Deep InfoMax. The defaults are the released code's; ST-DIM's are in brackets."""

    estimator: Literal["jsd", "info_nce", "dv"] = "jsd"
    """Bound on the mutual information. jsd: Jensen-Shannon (equation 4). info_nce: equation 5 [ST-DIM]. dv:
    Donsker-Varadhan (equation 2), unbounded and noisier."""
    future: Annotated[int, zero_or_more("the same observation")] = 0
    """Agent steps from the observation of the vector to that of the places. [ST-DIM: 1] Above 0, places are also
    compared with the same place of the present map, and info_nce takes only the same place of other images."""
    heads: Literal["residual", "linear"] = "residual"
    """residual: vector and places are both mapped to a common space. linear: the query alone is mapped, to the places'
    own features [ST-DIM]."""
    units: Annotated[int, at_least(1)] = 2048
    """Size of the common space of residual heads."""
    pool: Annotated[int, at_least(1)] = 8
    """Largest side of the map of places, in places. A larger map is averaged over regions first: 35×35 places, as in
    the agent's `curl` preset, cost about 30 times as much as 7×7."""
    local_weight: Annotated[float, at_least(0)] = 1.0
    """Weight of the information about each place."""
    global_weight: Annotated[float, at_least(0)] = 0.0
    """Weight of the information about the map as a whole."""

    def __post_init__(self) -> None:
        check_ranges(self, "objectives.dim")
        if not self.local_weight + self.global_weight:
            raise ValueError("objectives.dim.local_weight must be positive where global_weight is 0, got 0")


class _Pair(nn.Module):
    """The two maps whose inner product scores a query and a place: ``(B, query)``, ``(P, B, key)`` to ``(P, B, B)``."""

    def __init__(self, query: int, key: int, config: DIMConfig) -> None:
        super().__init__()
        self.query: nn.Module
        self.key: nn.Module
        if config.heads == "linear":
            self.query, self.key = nn.Linear(query, key), nn.Identity()
        else:
            self.query = ResidualHead(query, config.units, norm="layer")
            # A softmax over the keys cancels what all keys have in common.
            self.key = ResidualHead(key, config.units, norm="layer", shift=config.estimator != "info_nce")

    def forward(self, queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """The scores, and the mapped queries. Queries may differ by place: ``(P, B, query)``."""
        mapped = self.query(queries.flatten(0, -2)).unflatten(0, queries.shape[:-1])
        return place_scores(mapped, self.key(keys.flatten(0, -2)).unflatten(0, keys.shape[:-1])), mapped


class DIM(Objective):
    """Information of an image's vector about the places of its own map, or of the next observation's.

    The places are those of the encoder's most local map (``Features.local``). Where the vector is that very map's mean,
    the task is partly the identity.

    Raises:
        ValueError: in ``forward``, the batch has 1 sample.
    """

    reads_maps = True

    def __init__(self, features: FeatureSpec, config: DIMConfig = DIMConfig()) -> None:
        super().__init__()
        self.config = config
        self.online_views = (ViewSpec(0), ViewSpec(1, config.future)) if config.future else (ViewSpec(0),)
        channels, height, width = features.middle_shape or features.map_shape
        # At most pool × pool places, each the mean of a region; a smaller map keeps its own.
        self._sides = min(height, config.pool), min(width, config.pool)
        whole = channels * self._sides[0] * self._sides[1]
        self.local_pair = _Pair(features.dim, channels, config) if config.local_weight else None
        self.place_pair = _Pair(channels, channels, config) if config.local_weight and config.future else None
        self.global_pair = _Pair(features.dim, whole, config) if config.global_weight else None

    def forward(self, online: list[Features], target: list[Features], batch: BatchInfo) -> Result:
        now, then = online[0], online[-1]
        places = self._places(then)
        weighted: list[Tensor] = []
        metrics: dict[str, Tensor] = {}
        if self.global_pair is not None:
            whole = places.transpose(0, 1).flatten(1).unsqueeze(0)
            scores, embeddings = self.global_pair(now.vector, whole)
            weighted.append(self.config.global_weight * self._loss(scores))
            metrics["global_accuracy"] = self._accuracy(scores)
        if self.local_pair is not None:
            scores, embeddings = self.local_pair(now.vector, places)
            present = self._present(then)
            weighted.append(self.config.local_weight * self._loss(scores, present))
            metrics["accuracy"] = self._accuracy(scores, present)
        if self.place_pair is not None:
            scores, _ = self.place_pair(self._places(now), places)
            weighted.append(self.config.local_weight * self._loss(scores))
            metrics["place_accuracy"] = self._accuracy(scores)
        metrics["embedding_std"] = embedding_std(embeddings.detach())
        return Result(torch.stack(weighted).sum(), metrics)

    def _places(self, view: Features) -> Tensor:
        """``(P, B, C)``: the features of each place, in the vector's type."""
        pooled = F.adaptive_avg_pool2d(view.local.to(view.vector.dtype), self._sides)
        return pooled.flatten(2).permute(2, 0, 1)

    def _present(self, view: Features) -> Tensor | None:
        """``(P, B)``, False at places that hold nothing, such as a text's padding; None: all places count."""
        return None

    def _loss(self, scores: Tensor, present: Tensor | None = None) -> Tensor:
        if self.config.estimator == "jsd":
            return jensen_shannon(scores, present)
        if self.config.estimator == "dv":
            return donsker_varadhan(scores)
        return place_info_nce(scores, same_place=self.config.future > 0)

    def _accuracy(self, scores: Tensor, present: Tensor | None = None) -> Tensor:
        return place_accuracy(scores.detach(), same_place=self.config.future > 0, present=present)


METHOD = Method(
    "dim",
    DIM,
    DIMConfig,
    paper="Hjelm et al. 2018, arXiv 1808.06670",
    summary="Information of an image's vector about the places of its map; in time, ST-DIM.",
)
