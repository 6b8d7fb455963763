"""Encoding of an objective's views, shared by all users of objectives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby

import torch
from torch import Tensor

from curl_rl.encoders import Features, chunk_features
from curl_rl.objectives.base import ViewSpec


def encode_views(
    encode: Callable[[Tensor], Features],
    views: Mapping[ViewSpec, Tensor],
    specs: Sequence[ViewSpec],
    *,
    together: bool = False,
    known: Mapping[ViewSpec, Features] | None = None,
    encode_texts: Callable[[Tensor], Features] | None = None,
) -> list[Features]:
    """Features of each view in ``specs``, in that order.

    Args:
        encode: ``encode`` of the encoder or of its slow copy.
        views: each ``(B, C, H, W)``, or ``(B, L)`` tokens.
        specs: the views to encode.
        together: encode consecutive views of the same shape and modality as one batch, which matters to batch norm
            (``Objective.views_together``); otherwise each view separately.
        known: features that are already available and are not computed again.
        encode_texts: ``encode`` of the encoder of texts, where it is another than that of images.
    """
    known = {} if known is None else known

    def batch_of(place: int) -> object:
        spec = specs[place]
        if spec in known or not together:
            return place  # a separate batch
        return spec.modality, views[spec].shape

    features: list[Features] = []
    for _, places in groupby(range(len(specs)), batch_of):
        group = [specs[place] for place in places]
        apply = encode if encode_texts is None or group[0].modality == "image" else encode_texts
        if group[0] in known:
            features.append(known[group[0]])
        elif len(group) == 1:
            features.append(apply(views[group[0]]))
        else:
            features += chunk_features(apply(torch.cat([views[spec] for spec in group])), len(group))
    return features
