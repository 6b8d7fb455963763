"""Joining, splitting and indexing of features, whose numbers give their own row, counted by hand."""

from __future__ import annotations

import pytest
import torch

from curl_rl.encoders import Features, cat_features, chunk_features, map_features, take_features


def features(*rows: int, middle: bool = True) -> Features:
    """Row r has the vector (r, 10 r), a map of 2·r and, if ``middle``, a middle of 3·r."""
    each = torch.tensor(rows, dtype=torch.float64)
    vector, places = torch.stack([each, 10 * each], 1), each.view(-1, 1, 1, 1)
    return Features(vector, 2 * places.expand(-1, 4, 1, 2), 3 * places.expand(-1, 2, 3, 3).clone() if middle else None)


def same(first: Features, second: Features) -> bool:
    if (first.middle is None) != (second.middle is None):
        return False
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None)


@pytest.mark.parametrize("middle", [True, False])
def test_joining_keeps_the_order_and_splitting_undoes_it(middle: bool) -> None:
    parts = [features(1, 2, middle=middle), features(3, 4, middle=middle), features(5, 6, middle=middle)]
    joined = cat_features(parts)
    assert same(joined, features(1, 2, 3, 4, 5, 6, middle=middle))
    for part, expected in zip(chunk_features(joined, 3), parts, strict=True):
        assert same(part, expected)
    assert same(cat_features(parts[:1]), parts[0])
    # Parts of unequal sizes can be joined too, such as the last batch of an epoch.
    assert same(cat_features([features(7, middle=middle), parts[0]]), features(7, 1, 2, middle=middle))


@pytest.mark.parametrize("middle", [True, False])
def test_rows_are_taken_from_every_part(middle: bool) -> None:
    chosen = take_features(features(5, 6, 7, middle=middle), torch.tensor([2, 0, 2]))
    assert same(chosen, features(7, 5, 7, middle=middle))


@pytest.mark.parametrize("middle", [True, False])
def test_a_function_is_applied_to_every_part(middle: bool) -> None:
    assert same(map_features(lambda part: part * 4, features(1, 2, middle=middle)), features(4, 8, middle=middle))


def test_local_is_the_middle_or_else_the_map() -> None:
    with_middle, without = features(1, 2), features(1, 2, middle=False)
    assert with_middle.local is with_middle.middle
    assert without.local is without.map


def test_gradients_go_back_to_where_they_came_from() -> None:
    parts = [features(1, 2), features(3, 4)]
    for part in parts:
        part.vector.requires_grad_()
    second = chunk_features(cat_features(parts), 2)[1]
    take_features(second, torch.tensor([1])).vector.sum().backward()
    assert torch.equal(parts[0].vector.grad, torch.zeros(2, 2))  # type: ignore[arg-type]
    assert torch.equal(parts[1].vector.grad, torch.tensor([[0.0, 0.0], [1.0, 1.0]]))  # type: ignore[arg-type]


def test_impossible_joins_and_splits_are_refused() -> None:
    with pytest.raises(ValueError, match="with and without a middle cannot be joined"):
        cat_features([features(1), features(2, middle=False)])
    with pytest.raises(ValueError, match="must divide into 2 parts, got 3 samples"):
        chunk_features(features(1, 2, 3), 2)
