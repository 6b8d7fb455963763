"""From views to features: which views pass the encoder as one batch, seen by an encoder that records its batches."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from curl_rl.encoders import Features
from curl_rl.objectives import ViewSpec, encode_views

LARGE, SMALL, LATER = [ViewSpec(0), ViewSpec(1)], [ViewSpec(2), ViewSpec(3)], ViewSpec(0, future=1)
TEXT = ViewSpec(0, modality="text")
SIDES = {LARGE[0]: 4, LARGE[1]: 4, SMALL[0]: 2, SMALL[1]: 2, LATER: 4, TEXT: 4}
VIEWS = {spec: torch.full((3, 1, side, side), float(place)) for place, (spec, side) in enumerate(SIDES.items())}


@pytest.mark.parametrize(
    ("specs", "known", "together", "batches"),
    [
        ([*LARGE, *SMALL], [], True, [(6, 4), (6, 2)]),
        ([*LARGE, *SMALL], [], False, [(3, 4), (3, 4), (3, 2), (3, 2)]),
        ([LARGE[0], SMALL[0], LARGE[1]], [], True, [(3, 4), (3, 2), (3, 4)]),  # consecutive ones alone
        ([LARGE[0], TEXT, LATER], [], True, [(3, 4), (3, 4), (3, 4)]),
        ([*LARGE, LATER], [LARGE[0]], True, [(6, 4)]),
        ([LARGE[0], LARGE[1], LATER], [LARGE[1]], True, [(3, 4), (3, 4)]),
    ],
)
def test_consecutive_views_of_one_shape_and_modality_are_one_batch(
    specs: list[ViewSpec], known: list[ViewSpec], together: bool, batches: list[tuple[int, int]]
) -> None:
    seen: list[tuple[int, int]] = []

    def encode(images: Tensor) -> Features:
        seen.append((len(images), images.shape[-1]))
        return Features(images.mean((1, 2, 3))[:, None], images)

    had = {spec: Features(torch.full((3, 1), -1.0), VIEWS[spec]) for spec in known}
    features = encode_views(encode, VIEWS, specs, together=together, known=had)
    assert seen == batches
    expected = [-1.0 if spec in known else VIEWS[spec].mean().item() for spec in specs]
    assert [view.vector.unique().tolist() for view in features] == [[value] for value in expected]
    assert [view.map.shape[-1] for view in features] == [SIDES[spec] for spec in specs]
