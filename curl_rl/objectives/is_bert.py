"""IS-BERT: information of a sentence's vector about its n-grams (Zhang et al. 2020, arXiv 2009.12061).

It is Deep InfoMax over a text: the places of the map are tokens, convolutions over them give the features of n-grams,
and the sentence's vector must tell its own n-grams from those of other sentences. Padding takes no part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curl_rl.encoders import Features, FeatureSpec
from curl_rl.objectives.base import ViewSpec
from curl_rl.objectives.dim import DIM, DIMConfig
from curl_rl.objectives.method import Method
from curl_rl.ranges import Range, at_least, check_ranges

_ODD = Range(
    "be one or more different odd sizes, such as [1, 3, 5]",
    lambda sizes: bool(sizes) and len(set(sizes)) == len(sizes) and all(n > 0 and n % 2 for n in sizes),
)


@dataclass(frozen=True)
class ISBERTConfig:
    """The n-grams of IS-BERT. The estimator is Jensen-Shannon's, as in the paper."""

    windows: Annotated[tuple[int, ...], _ODD] = (1, 3, 5)
    """Sizes n of the n-grams, in tokens."""
    dim: Annotated[int, at_least(1)] = 256
    """Features of each size of n-gram."""

    def __post_init__(self) -> None:
        check_ranges(self, "objectives.is_bert")


class ISBERT(DIM):
    """:class:`~curl_rl.objectives.DIM` between a sentence's vector and the n-grams around each of its tokens."""

    needs = frozenset({"text"})

    def __init__(self, features: FeatureSpec, config: ISBERTConfig = ISBERTConfig()) -> None:
        channels, rows, length = features.map_shape
        grams = FeatureSpec(features.dim, (config.dim * len(config.windows), rows, length))
        super().__init__(grams, DIMConfig(heads="linear", pool=max(rows, length)))
        self.online_views = (ViewSpec(0, modality="text"),)
        self.windows = nn.ModuleList(nn.Conv1d(channels, config.dim, size, padding="same") for size in config.windows)

    def _places(self, view: Features) -> Tensor:
        """``(P, B, C)``: the n-grams around each token."""
        tokens = view.map.to(view.vector.dtype).flatten(2)
        grams = F.relu(torch.cat([window(tokens) for window in self.windows], 1))
        return grams.permute(2, 0, 1)

    def _present(self, view: Features) -> Tensor:
        # A text encoder's map is 0 at padding, in all channels, and nowhere else: its features are layer-normalized.
        return (view.map != 0).any(1).flatten(1).T


METHOD = Method(
    "is_bert",
    ISBERT,
    ISBERTConfig,
    paper="Zhang et al. 2020, arXiv 2009.12061",
    summary="Information of a sentence's vector about its n-grams: DIM on texts.",
    instead="dim (scripts/pretrain_text.py trains on sentences)",
)
