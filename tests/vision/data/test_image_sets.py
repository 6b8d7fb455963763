"""Batches and their order: in memory or streamed, resumed or whole, whole or shared by processes."""

from __future__ import annotations

import importlib.util
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch

from curl_rl.vision.data import folders, image_sets, load
from curl_rl.vision.data.image_sets import ImageSet, ResidentImages, StreamedImages, epoch_order
from helpers.image_folders import as_tensor, loaders, make_classes, pixels


@pytest.fixture
def eleven(tmp_path: Path) -> list[ImageSet]:
    return loaders(make_classes(tmp_path, ant=5, bee=6))


def indices(images: ImageSet, batch_size: int, **arguments: object) -> list[list[int]]:
    return [batch.indices.tolist() for batch in images.batches(batch_size, **arguments)]  # type: ignore[arg-type]


def test_streamed_batches_equal_those_in_memory(eleven: list[ImageSet]) -> None:
    resident, streamed = ([*images.batches(4, seed=3, epoch=2)] for images in eleven)
    assert len(resident) == len(streamed) == 2
    for one, other in zip(resident, streamed, strict=True):
        assert not one.later, "only recorded frames have later observations"
        assert not other.later
        for a, b in zip(one[:3], other[:3], strict=True):
            assert a is not None
            assert b is not None
            assert torch.equal(a, b)
        assert torch.equal(one.images, torch.stack([as_tensor(pixels(int(number))) for number in one.indices]))
        assert one.labels is not None
        assert one.labels.tolist() == [int(number >= 5) for number in one.indices]


def test_batches_from_worker_processes_equal_those_in_memory(tmp_path: Path) -> None:
    make_classes(tmp_path, ant=5, bee=6)
    resident, streamed = load(tmp_path, storage="memory"), load(tmp_path, storage="stream", workers=2)
    for one, other in zip(resident.batches(3, seed=1), streamed.batches(3, seed=1), strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.indices, other.indices)


def test_an_epoch_resumes_at_any_batch(eleven: list[ImageSet]) -> None:
    for images in eleven:
        whole = indices(images, 3, seed=5, epoch=1)
        for start in range(4):
            assert indices(images, 3, seed=5, epoch=1, start_batch=start) == whole[start:]


def test_the_order_depends_on_seed_and_epoch_alone(eleven: list[ImageSet]) -> None:
    for images in eleven:
        first = indices(images, 11, seed=1, epoch=1)
        torch.manual_seed(0)
        np.random.seed(0)
        assert indices(images, 11, seed=1, epoch=1) == first
        assert indices(images, 11, seed=1, epoch=2) != first
        assert indices(images, 11, seed=2, epoch=1) != first
        assert indices(images, 11, seed=0, epoch=2) != first
        assert indices(images, 11, seed=1, epoch=1, shuffle=False) == [list(range(11))]


def test_no_global_random_number_is_drawn(eleven: list[ImageSet]) -> None:
    for images in eleven:
        before = torch.get_rng_state()
        indices(images, 3)
        assert torch.equal(torch.get_rng_state(), before)


def test_the_remainder_is_dropped_or_a_shorter_batch(eleven: list[ImageSet]) -> None:
    for images in eleven:
        dropped, kept = indices(images, 4), indices(images, 4, drop_last=False)
        assert [len(batch) for batch in dropped] == [4, 4]
        assert [len(batch) for batch in kept] == [4, 4, 3]
        assert kept[:2] == dropped
        assert sorted(chain.from_iterable(kept)) == list(range(11))
        assert images.batches_per_epoch(4) == 2
        assert images.batches_per_epoch(4, drop_last=False) == 3
        assert indices(images, 50, shuffle=False, drop_last=False) == [list(range(11))]
        assert images.batches_per_epoch(11) == images.batches_per_epoch(11, drop_last=False) == 1


def test_the_processes_shares_make_up_the_batches(eleven: list[ImageSet]) -> None:
    for images in eleven:
        whole = indices(images, 5, drop_last=False)
        shares = [indices(images, 5, drop_last=False, rank=rank, world_size=3) for rank in range(3)]
        assert [[len(batch) for batch in share] for share in shares] == [[2, 2, 1], [2, 2, 0], [1, 1, 0]]
        assert [[*chain.from_iterable(parts)] for parts in zip(*shares, strict=True)] == whole


def test_every_position_in_the_order_is_equally_likely_for_an_image() -> None:
    orders = torch.stack([epoch_order(4, seed=0, epoch=epoch) for epoch in range(2000)])
    assert (orders.sort(1).values == torch.arange(4)).all()
    counts = torch.stack([(orders == image).sum(0) for image in range(4)])
    assert (counts - 500).abs().max() < 5 * (2000 * 0.25 * 0.75) ** 0.5


@pytest.mark.parametrize(
    ("batch_size", "arguments", "message"),
    [
        (12, {}, r"batch_size 12 is larger than .*, which has 11 images"),
        (0, {}, "batch_size must be at least 1, got 0"),
        (4, {"start_batch": 3}, "start_batch must be between 0 and the epoch's 2 batches, got 3"),
        (4, {"start_batch": -1}, "start_batch must be between 0"),
        (4, {"rank": 2, "world_size": 2}, "rank must be at least 0 and below world_size, got 2 of 2"),
    ],
)
def test_impossible_batches_are_refused_at_once(
    eleven: list[ImageSet], batch_size: int, arguments: dict[str, int], message: str
) -> None:
    for images in eleven:
        with pytest.raises(ValueError, match=message):
            images.batches(batch_size, **arguments)  # type: ignore[arg-type]


# ------------------------------------------------------------------- memory or stream


def test_a_set_streams_when_it_takes_more_than_a_quarter_of_free_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_classes(tmp_path, ant=10)
    needed = 10 * 3 * 6 * 6
    monkeypatch.setattr(image_sets, "available_memory", lambda: 4 * needed)
    assert isinstance(load(tmp_path), ResidentImages)
    monkeypatch.setattr(image_sets, "available_memory", lambda: 4 * needed - 1)
    assert isinstance(load(tmp_path), StreamedImages)
    assert isinstance(load(tmp_path, storage="memory"), ResidentImages)
    monkeypatch.setattr(image_sets, "available_memory", lambda: needed - 1)
    with pytest.raises(ValueError, match=r"storage memory: 10 images of 6×6 take .* use compute.storage stream"):
        load(tmp_path, storage="memory")


def test_images_in_memory_must_be_square_bytes() -> None:
    for wrong in (torch.zeros(2, 3, 4, 5, dtype=torch.uint8), torch.zeros(2, 3, 4, 4)):
        with pytest.raises(ValueError, match=r"images must be \(N, 3, S, S\) uint8, got"):
            ResidentImages("wrong", wrong)


def test_everything_returns_images_in_memory_without_a_copy() -> None:
    digits = folders.load("digits") if importlib.util.find_spec("sklearn") else None
    if digits is None:
        pytest.skip("scikit-learn is not installed")
    batch = digits.everything()
    (same,) = digits.batches(len(digits), shuffle=False)
    assert torch.equal(batch.images, same.images)
    assert torch.equal(batch.indices, same.indices)
    assert batch.labels is digits.labels
    assert isinstance(digits, image_sets.ResidentImages)
    assert batch.images.data_ptr() == digits.images.data_ptr()
