"""The ring against a list, the table against a dictionary."""

from __future__ import annotations

import copy
import math
from collections import deque
from typing import Any

import pytest
import torch

from curl_rl.objectives.banks import ClassRings, Ring, Table
from helpers.random_tensors import unit


@pytest.mark.parametrize("sizes", [[3, 3, 3, 3], [7], [2, 5, 4, 1, 7, 3], [6, 6, 6]])
def test_a_ring_holds_the_newest_at_any_sizes(sizes: list[int]) -> None:
    ring, newest, number = Ring(7, 2), deque[float](maxlen=7), 0.0
    assert not ring.valid.any()
    for size in sizes:
        batch = torch.arange(number, number + size)
        number += size
        ring.push(torch.stack([batch, -batch], 1))
        newest.extend(batch.tolist())
        held = ring.embeddings[ring.valid]
        assert sorted(held[:, 0].tolist()) == list(newest)
        assert torch.equal(held[:, 1], -held[:, 0])


def test_a_ring_takes_no_gradient_and_no_more_than_it_holds() -> None:
    ring = Ring(3, 2)
    ring.push(torch.ones(2, 2, requires_grad=True))
    assert not ring.embeddings.requires_grad
    with pytest.raises(ValueError, match="a ring of 3 embeddings cannot take 4 at once"):
        ring.push(torch.zeros(4, 2))


@pytest.mark.parametrize(("size", "dim"), [(0, 2), (2, 0)])
def test_a_ring_without_room_is_refused(size: int, dim: int) -> None:
    with pytest.raises(ValueError, match=f"got {size} and {dim}"):
        Ring(size, dim)


def test_a_ring_continues_where_it_was_saved() -> None:
    ring = Ring(5, 1)
    ring.push(torch.tensor([[1.0], [2.0], [3.0]]))
    other = Ring(5, 1)
    other.load_state_dict(copy.deepcopy(ring.state_dict()))
    for one in (ring, other):
        one.push(torch.tensor([[4.0], [5.0], [6.0]]))
    assert torch.equal(ring.embeddings, other.embeddings)
    assert ring.embeddings.sum().item() == math.fsum([2, 3, 4, 5, 6])


# ------------------------------------------------------------------ tables


@pytest.mark.parametrize("momentum", [0.0, 0.5, torch.tensor(0.9, dtype=torch.float64)], ids=["0", "0.5", "tensor"])
def test_a_table_is_a_dictionary_of_moving_means(momentum: float | torch.Tensor) -> None:
    table, by_hand = Table(7, 3).double(), dict[int, list[float]]()
    keep, repeated = float(momentum), 0
    for step in range(8):
        indices = torch.randint(7, (5,), generator=torch.Generator().manual_seed(step))
        new = unit(5, 3, seed=step)
        table.update(indices, new, momentum)
        # The last embedding of an index counts, as in a dictionary.
        written = dict(zip(indices.tolist(), new.tolist(), strict=True))
        repeated += len(written) < len(indices)
        for index, vector in written.items():
            mean = [keep * a + (1 - keep) * b for a, b in zip(by_hand.get(index, vector), vector, strict=True)]
            by_hand[index] = [number / math.hypot(*mean) for number in mean]
        assert table.known.tolist() == [index in by_hand for index in range(7)]
        for index, vector in enumerate(table.embeddings.tolist()):
            assert vector == pytest.approx(by_hand.get(index, [0, 0, 0]), rel=1e-12)
    assert repeated, "an index twice in one batch"


def test_an_unknown_row_takes_an_embedding_unchanged() -> None:
    table = Table(3, 2)
    table.update(torch.tensor([2]), torch.tensor([[3.0, 4.0]], requires_grad=True), 0.5)
    assert table.embeddings.tolist() == [[0, 0], [0, 0], [3, 4]]
    assert not table.embeddings.requires_grad
    table.update(torch.tensor([2]), torch.tensor([[3.0, 4.0]], dtype=torch.float16), 0.5)
    assert table.embeddings[2].tolist() == pytest.approx([0.6, 0.8])


def test_a_window_wraps_around_to_the_first_row() -> None:
    table = Table(5, 1)
    table.update(torch.tensor([0, 1, 3, 4]), torch.tensor([[10.0], [11.0], [13.0], [14.0]]), 0.0)
    for start in (3, 8):
        window = table.window(4, torch.tensor(start))
        assert window.indices.tolist() == [3, 4, 0, 1]
        assert window.embeddings[:, 0].tolist() == [13, 14, 10, 11]
        assert window.known.all()
    assert table.window(2, torch.tensor(2)).known.tolist() == [False, True]
    assert table.window(5, torch.tensor(0)).known.tolist() == [True, True, False, True, True]


def test_a_table_never_waits_for_the_device(no_host_sync: Any) -> None:
    table, indices, new = Table(6, 2), torch.tensor([4, 1, 4]), torch.ones(3, 2)
    half, start = torch.tensor(0.5), torch.tensor(5)
    with no_host_sync():
        table.update(indices, new, half)
        table.update(indices, new, 0.5)
        table.window(3, start)


def test_a_table_continues_where_it_was_saved() -> None:
    table, other = Table(4, 2), Table(4, 2)
    table.update(torch.tensor([1, 2]), unit(2, 2).float(), 0.5)
    other.load_state_dict(copy.deepcopy(table.state_dict()))
    for one in (table, other):
        one.update(torch.tensor([2, 3]), unit(2, 2, seed=1).float(), 0.5)
    assert torch.equal(table.embeddings, other.embeddings)
    assert torch.equal(table.known, other.known)


@pytest.mark.parametrize("count", [None, 0])
def test_a_table_without_a_count_is_refused_in_one_line(count: int | None) -> None:
    with pytest.raises(ValueError, match=f"^count must be the number of images, at least 1, got {count}: .*$"):
        Table(count, 2)


def test_impossible_tables_and_windows_are_refused() -> None:
    with pytest.raises(ValueError, match="dim must be at least 1, got 0"):
        Table(3, 0)
    for size in (0, 4):
        with pytest.raises(ValueError, match=f"size must be between 1 and the table's 3 rows, got {size}"):
            Table(3, 2).window(size, torch.tensor(0))


def test_class_rings_keep_the_newest_of_each_class() -> None:
    rings = ClassRings(classes=3, size=2, dim=1)
    by_hand: dict[int, list[float]] = {0: [], 1: [], 2: []}
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        labels = torch.randint(-1, 3, (5,), generator=generator)
        values = torch.randn(5, 1, generator=generator)
        rings.push(values, labels)
        for label, value in zip(labels.tolist(), values[:, 0].tolist(), strict=True):
            if label >= 0:
                by_hand[label] = [*by_hand[label], value][-2:]
        for label, kept in by_hand.items():
            filled = rings.embeddings[label, : len(kept), 0]
            assert sorted(filled.tolist()) == sorted(kept)
            assert rings.means()[label].item() == pytest.approx(sum(kept) / len(kept) if kept else 0, abs=1e-6)


def test_class_rings_refuse_sizes_below_one() -> None:
    with pytest.raises(ValueError, match="must be at least 1, got 2, 0 and 3"):
        ClassRings(2, 0, 3)
