"""CPC over the patches of an image (van den Oord et al. 2018, arXiv 1807.03748, section 3.3), as `cpc` of kind patches.

The context of a place sees the patches of its row and of the rows above. It predicts the patches of the same column
further down, past those that its own row overlaps.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from curl_rl.encoders import Features, FeatureSpec
from curl_rl.losses.half_precision import widened
from curl_rl.objectives.base import BatchInfo, Objective, Result, ViewSpec
from curl_rl.objectives.stepwise_contrast import StepwiseContrast


class PatchCPC(Objective):
    """Bilinear InfoNCE between the context of each place and the patches below; negatives are those of the same rows.

    Args:
        features: sizes of an encoder's features whose map holds patches.
        steps: number of rows to predict, K.
        skip: rows between a context's own and the first one that it predicts.
        context_layers: masked residual blocks of the context network, each of which sees one row further up.
        hidden: width of these blocks; None, the features' size.
        layer_norm: standardize each patch's and each context's vector over its features first.

    Raises:
        ValueError: the encoder sees whole images, or the grid has too few rows.
    """

    online_views = (ViewSpec(0),)
    reads_maps = True

    def __init__(
        self,
        features: FeatureSpec,
        *,
        steps: int,
        skip: int = 1,
        context_layers: int = 5,
        hidden: int | None = None,
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        dim, rows, _ = features.map_shape
        if not features.patches:
            raise ValueError(
                "objectives.cpc.kind must be time for an encoder of whole images, got patches: set encoder.patch, the "
                "side of a patch, or wrap your encoder in a PatchEncoder"
            )
        if rows <= skip + steps:
            raise ValueError(
                f"objectives.cpc.steps must be at most {rows - skip - 1}, for {rows} rows of patches with "
                f"objectives.cpc.skip {skip}, got {steps}"
            )
        self.skip, self.layer_norm = skip, layer_norm
        self.context = nn.Sequential(*(_MaskedBlock(dim, hidden or dim) for _ in range(context_layers)))
        self.contrast = StepwiseContrast(dim, steps)

    def forward(self, online: list[Features], target: list[Features], batch: BatchInfo) -> Result:
        patches = widened(online[0].map)
        if len(patches) < 2:
            raise ValueError(f"cpc needs at least 2 samples in a batch (batch_size), got {len(patches)}")
        patches = self._standardized(patches)
        context = self._standardized(self.context(patches))
        rows = patches.shape[2]
        pairs = []
        for below in range(self.skip + 1, self.skip + 1 + self.contrast.steps):
            pairs.append((_vectors(context[:, :, : rows - below]), _vectors(patches[:, :, below:])))
        return self.contrast(pairs, online[0].vector.detach())

    def _standardized(self, maps: Tensor) -> Tensor:
        """``(B, D, h, w)``, each place's vector over its D features."""
        if not self.layer_norm:
            return maps
        return F.layer_norm(maps.movedim(1, -1), maps.shape[1:2]).movedim(-1, 1)


def _vectors(maps: Tensor) -> Tensor:
    """``(B, D, h, w)`` to ``(B·h·w, D)``."""
    return maps.movedim(1, -1).flatten(0, 2)


class _MaskedBlock(nn.Module):
    """A residual block whose output sees its own row and the one above, with one more column on either side."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(dim, hidden, 1)
        self.look = nn.Conv2d(hidden, hidden, (2, 3), padding=(0, 1))
        self.expand = nn.Conv2d(hidden, dim, 1)

    def forward(self, maps: Tensor) -> Tensor:
        hidden = F.pad(self.reduce(maps).relu(), (0, 0, 1, 0))  # a row of zeros on top
        expanded: Tensor = self.expand(self.look(hidden).relu())
        return maps + expanded
