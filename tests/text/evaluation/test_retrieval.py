"""Recall in small galleries by hand: several captions, equal captions, equal pictures, ties and chance."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch

from curl_rl.text.data.pairs import PairSet
from curl_rl.text.evaluation.retrieval import (
    chance_both_ways,
    gallery_of,
    neighbors_captions,
    ranks_of_the_right,
    recall,
    recall_both_ways,
)
from curl_rl.vision.data.image_sets import ResidentImages

YES, NO = True, False


@pytest.fixture
def pairs() -> PairSet:
    """Four images: the first and the third are the same picture; the second and the fourth have a caption in common."""
    images = ResidentImages("four", torch.zeros(4, 3, 2, 2, dtype=torch.uint8))
    return PairSet(images, ("a", "b", "c", "d"), ((0, 1), (2,), (0, 3), (2, 3)), torch.tensor([0, 1, 0, 3]))


def test_every_picture_and_caption_counts_once_and_belongs_to_all_it_appears_with(pairs: PairSet) -> None:
    gallery = gallery_of(pairs)
    assert gallery.images.tolist() == [0, 1, 3]
    assert gallery.texts == ("a", "b", "c", "d")
    assert gallery.relevant.tolist() == [[YES, YES, NO, YES], [NO, NO, YES, NO], [NO, NO, YES, YES]]


def test_names_alone_are_the_first_captions(pairs: PairSet) -> None:
    gallery = gallery_of(pairs, names_only=True)
    assert gallery.texts == ("a", "c")
    assert gallery.relevant.tolist() == [[YES, NO], [NO, YES], [NO, YES]]


def test_recall_by_hand() -> None:
    similarity = torch.tensor([[0.9, 0.1, 0.5], [0.2, 0.3, 0.4], [0.6, 0.7, 0.1]])
    relevant = torch.tensor([[YES, NO, NO], [YES, NO, NO], [YES, NO, YES]])
    assert ranks_of_the_right(similarity, relevant).tolist() == [1, 3, 2]
    found = recall(similarity, relevant, (1, 2, 5))
    assert found == {
        "recall@1": pytest.approx(1 / 3), "recall@2": pytest.approx(2 / 3), "recall@5": 1.0, "median_rank": 2.0
    }  # fmt: skip


def test_equal_embeddings_earn_nothing_unless_everything_is_right() -> None:
    similarity, relevant = torch.ones(2, 4), torch.tensor([[YES, NO, NO, YES], [YES, YES, YES, YES]])
    assert ranks_of_the_right(similarity, relevant).tolist() == [3, 1]


def test_both_ways_are_named_and_the_second_is_the_transpose() -> None:
    similarity = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
    relevant = torch.tensor([[YES, NO], [NO, YES]])
    found = recall_both_ways(similarity, relevant, (1,))
    assert found == {
        "image_to_text/recall@1": 0.0, "image_to_text/median_rank": 2.0,
        "text_to_image/recall@1": 0.0, "text_to_image/median_rank": 2.0,
    }  # fmt: skip
    found = recall_both_ways(torch.tensor([[1.0, 2.0], [0.0, 3.0]]), relevant, (1,))
    assert (found["image_to_text/recall@1"], found["text_to_image/recall@1"]) == (0.5, 1.0)


def orders(relevant: torch.Tensor) -> Iterator[torch.Tensor]:
    """All orders of the columns, as similarities."""
    for order in itertools.permutations(range(relevant.shape[1])):
        yield torch.tensor(order, dtype=torch.float64).expand(relevant.shape)


def test_chance_is_the_mean_over_all_orders() -> None:
    relevant = torch.tensor([[YES, NO, NO, NO], [YES, NO, YES, NO], [NO, YES, YES, YES]])
    chance = chance_both_ways(relevant, (1, 2, 3))
    for way, rows in (("image_to_text", relevant), ("text_to_image", relevant.T)):
        enumerated = [recall(similarity, rows, (1, 2, 3)) for similarity in orders(rows)]
        for k in (1, 2, 3):
            mean = sum(found[f"recall@{k}"] for found in enumerated) / len(enumerated)
            assert chance[f"{way}/recall@{k}"] == pytest.approx(mean)


def test_a_query_without_a_right_item_and_similarities_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="a right item for each query"):
        recall(torch.zeros(2, 2), torch.tensor([[YES, NO], [NO, NO]]))
    with pytest.raises(ValueError, match="got NaN"):
        recall(torch.full((1, 2), torch.nan), torch.tensor([[YES, NO]]))


def test_a_picture_fits_the_captions_of_pictures_like_it() -> None:
    known = torch.tensor([[2.0, 0.0], [0.0, 2.0], [-2.0, -2.0]])
    captions = torch.tensor([[1.0, 0.0], [0.0, 0.5], [0.2, 0.0]])
    # The mean is 0; the cosines of (1, 0) are 1, 0 and −0.707, of which the last counts as 0.
    found = neighbors_captions(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), known, captions)
    assert torch.allclose(found, torch.tensor([[1.0, 0.0], [0.5**0.5, 0.5 * 0.5**0.5]]))
