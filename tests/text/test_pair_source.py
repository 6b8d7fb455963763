"""Images with captions as a source: captions drawn by epoch, contents, and the same batches in any process."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch

from curl_rl.objectives import ViewSpec
from curl_rl.text.data.pairs import PairSet
from curl_rl.text.pair_source import PairBatch, PairSource
from curl_rl.text.tokenizer import Tokenizer
from curl_rl.vision.data.image_sets import ResidentImages
from curl_rl.vision.views import AugmentConfig

pytest.importorskip("tokenizers")

TEXTS = ("a red apple", "an apple", "fruit", "a green pear", "a dog", "an animal")
CAPTIONS = ((0, 1, 2), (3, 2), (4,), (4, 5), (0, 2))
IMAGE, TEXT, OTHER_TEXT = ViewSpec(0), ViewSpec(0, modality="text"), ViewSpec(1, modality="text")
LENGTH, SIZE = 12, 6
PLAIN = AugmentConfig(views=1, size=SIZE, crop="plain", jitter=0, greyscale=0)


def pairs() -> PairSet:
    """Five images of one gray each; the first and the last are the same picture."""
    pixels = torch.arange(5).mul(40).view(5, 1, 1, 1).expand(5, 3, SIZE, SIZE).to(torch.uint8).contiguous()
    pixels[4] = pixels[0]
    images = ResidentImages("five", pixels, ("food", "animals"), torch.tensor([0, 0, 1, 1, 0]))
    images.identity = "gray"
    return PairSet(images, TEXTS, CAPTIONS, torch.tensor([0, 1, 2, 3, 0]))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS, 300)


@pytest.fixture
def source(tokenizer: Tokenizer) -> PairSource:
    return PairSource(pairs(), tokenizer, LENGTH, PLAIN, provenance={"data": "five"}).showing([IMAGE, TEXT])


def texts_of(batch: PairBatch, tokenizer: Tokenizer, view: int = 0) -> list[str]:
    return [tokenizer.decode(row) for row in batch.tokens[view]]


def test_a_batch_has_each_image_with_one_of_its_own_captions(source: PairSource, tokenizer: Tokenizer) -> None:
    for epoch in range(4):
        (batch,) = source.batches(5, seed=1, epoch=epoch)
        found = zip(batch.indices.tolist(), texts_of(batch, tokenizer), batch.contents.tolist(), strict=True)
        for index, text, (image, caption) in found:
            assert text in [TEXTS[place] for place in CAPTIONS[index]]
            assert TEXTS[caption] == text
            assert image == (0 if index == 4 else index)
        assert batch.labels is not None
        assert batch.labels.tolist() == [[0, 0, 1, 1, 0][index] for index in batch.indices]
        assert batch.actions is None


def test_captions_are_as_wide_as_the_longest(tokenizer: Tokenizer) -> None:
    longest = int((tokenizer.encode(TEXTS, 100) != 0).sum(1).max())
    source = PairSource(pairs(), tokenizer, 100, PLAIN).showing([IMAGE, TEXT])
    (batch,) = source.batches(5, seed=1)
    assert batch.tokens[0].shape == (5, longest)
    assert source.shapes["text"] == (tokenizer.vocabulary, 1, 100), "the encoder takes longer ones"


def test_captions_are_drawn_evenly_anew_in_each_epoch(source: PairSource, tokenizer: Tokenizer) -> None:
    drawn = Counter()
    for epoch in range(600):
        (batch,) = source.batches(5, seed=1, epoch=epoch)
        drawn[texts_of(batch, tokenizer)[batch.indices.tolist().index(0)]] += 1
    assert drawn.keys() == {"a red apple", "an apple", "fruit"}
    assert all(abs(count - 200) < 4 * (600 * 2 / 9) ** 0.5 for count in drawn.values())


def test_seed_and_epoch_decide_and_processes_see_the_batch_of_one(source: PairSource) -> None:
    def tokens(**arguments: int) -> list[torch.Tensor]:
        return [batch.tokens[0] for batch in source.batches(2, **{"seed": 1, "epoch": 3, **arguments})]

    whole = tokens()
    assert len(whole) == 2
    parts = zip(tokens(rank=0, world_size=2), tokens(rank=1, world_size=2), strict=True)
    for together, shares in zip(whole, parts, strict=True):
        assert torch.equal(together, torch.cat(shares))
    assert torch.equal(tokens(start_batch=1)[0], whole[1]), "a resumed run draws the same"
    assert not all(torch.equal(one, other) for one, other in zip(tokens(seed=2), whole, strict=True))


def test_two_text_views_are_drawn_independently(tokenizer: Tokenizer) -> None:
    source = PairSource(pairs(), tokenizer, LENGTH, PLAIN).showing([IMAGE, TEXT, OTHER_TEXT])
    combinations = set()
    for epoch in range(40):
        (batch,) = source.batches(5, seed=0, epoch=epoch)
        place = batch.indices.tolist().index(1)
        combinations.add((texts_of(batch, tokenizer)[place], texts_of(batch, tokenizer, 1)[place]))
        assert batch.contents.shape == (5, 3)
    assert len(combinations) == 4


def test_views_are_images_and_tokens_by_their_specs(source: PairSource) -> None:
    (batch,) = source.batches(5, seed=1)
    views = source.views(batch, torch.Generator().manual_seed(0))
    assert views.keys() == {IMAGE, TEXT}
    assert torch.equal(views[TEXT], batch.tokens[0])
    assert views[IMAGE].shape == (5, 3, SIZE, SIZE)
    shown = (255 * views[IMAGE]).round() if views[IMAGE].is_floating_point() else views[IMAGE]
    assert torch.equal(shown.int(), batch.images.images.int())
    assert torch.equal(source.center(batch), batch.images.images)


def test_everything_has_the_first_captions_in_order(source: PairSource, tokenizer: Tokenizer) -> None:
    found = [text for batch in source.everything(2) for text in texts_of(batch, tokenizer)]
    assert found == [TEXTS[own[0]] for own in CAPTIONS]


def test_it_tells_what_it_is(source: PairSource, tokenizer: Tokenizer) -> None:
    assert source.shapes == {"image": (3, SIZE, SIZE), "text": (tokenizer.vocabulary, 1, LENGTH)}
    assert source.has == {"indices", "epochs", "labels", "text"}
    assert source.provenance == {"data": "five", "captions": 10, "tokenizer": tokenizer.sha256}
    assert (source.data.count, source.data.classes, len(source)) == (5, 2, 5)
    other = PairSource(replace(pairs(), captions=((0,), *CAPTIONS[1:])), tokenizer, LENGTH, PLAIN)
    longer = PairSource(pairs(), tokenizer, LENGTH + 1, PLAIN)
    assert len({source.identity, other.identity, longer.identity}) == 3
