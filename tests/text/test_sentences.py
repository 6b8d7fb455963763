"""Files of sentences, the sentences that are built in, and the batches and views of both."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from curl_rl.objectives import ViewSpec
from curl_rl.runs.errors import UserError
from curl_rl.text.sentences import GRAMMAR, read_sentences
from curl_rl.text.source import SentenceSource
from curl_rl.text.tokenizer import SMALLEST, Tokenizer

CPU = torch.device("cpu")
TEXT = [ViewSpec(index, modality="text") for index in range(3)]


def written(path: Path, content: str | bytes) -> Path:
    file = path / "sentences.txt"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def test_one_sentence_a_line_and_empty_lines_between_documents(tmp_path: Path) -> None:
    found = read_sentences(written(tmp_path, "\ufeffA cat.\r\nIt sleeps.\n\n\nA dog.\n  It barks. \nLoudly."))
    assert found.columns == (("A cat.", "It sleeps.", "A dog.", "It barks.", "Loudly."),)
    assert found.following == (1, 1, 3, 4, 4)


def test_positives_and_hard_negatives_are_columns(tmp_path: Path) -> None:
    found = read_sentences(written(tmp_path, "a\tb\tc\nd\te\tf\n"))
    assert found.columns == (("a", "d"), ("b", "e"), ("c", "f"))


def test_the_fingerprint_follows_texts_order_and_documents(tmp_path: Path) -> None:
    contents = ["a\nb\nc", "a\nc\nb", "a\n\nb\nc", "a\nb", "a\tb\tc"]
    found = {read_sentences(written(tmp_path, content)).identity for content in contents}
    assert len(found) == len(contents)
    assert read_sentences(written(tmp_path, "a\nb\nc\n")).identity in found


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("a\nb\tc\n", r"line 2 of .*sentences\.txt must have 1 text, as the first line, got 2 separated by tabs"),
        ("a\tb\tc\td\n", r"line 1 of .* must have at most 3 texts separated by tabs .*, got 4"),
        ("a\tb\n\tc\n", r"line 2 of .* must have a text in each of its 2 columns, got an empty one"),
        ("\n \n", r"data must be a file of sentences, one a line, got .*, which is empty"),
        (b"\xff\xfe", r"data must be a text file in UTF-8, got .*, which is not: convert it"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, content: str | bytes, line: str) -> None:
    with pytest.raises(UserError, match=f"^{line}$"):
        read_sentences(written(tmp_path, content))


def test_a_folder_or_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"one a line, got .*: it is a folder: name a file in it$"):
        read_sentences(tmp_path)
    for name in ("two.tsv", "one.txt", "three.png"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r": it is a folder: name a file in it, such as .*one\.txt$"):
        read_sentences(tmp_path)
    (tmp_path / "captions.tsv").touch()
    with pytest.raises(UserError, match=r": images with captions\.tsv take --method clip$"):
        read_sentences(tmp_path)
    with pytest.raises(UserError, match=r"got .*shapes, which does not exist; these pictures take --method clip$"):
        read_sentences(tmp_path / "shapes")
    with pytest.raises(UserError, match=r"got .*nothing, which does not exist$"):
        read_sentences(tmp_path / "nothing")


def test_the_built_in_sentences_are_all_different_and_not_their_hard_negatives() -> None:
    found = read_sentences(GRAMMAR)
    sentences, positives, negatives = found.columns
    assert len(set(sentences)) == len(sentences) == len(found.following) == 1224
    assert not any(len({one, two, three}) < 3 for one, two, three in zip(sentences, positives, negatives, strict=True))
    assert "a red circle is above a blue star" in sentences or "a red circle is left of a blue star" in sentences


@pytest.fixture
def source(tmp_path: Path) -> SentenceSource:
    rows = "".join(f"a{number}\tb{number}\tc{number}\n" + "\n" * (number == 3) for number in range(7))
    sentences = read_sentences(written(tmp_path, rows))
    tokenizer = Tokenizer.train(["a", "b", "c"], SMALLEST)
    return SentenceSource(sentences, tokenizer, 6, CPU).showing(TEXT)


def shown(source: SentenceSource, tokens: torch.Tensor) -> list[str]:
    return [source.tokenizer.decode(row) for row in tokens]


def test_views_are_the_sentence_its_positive_and_its_hard_negative(source: SentenceSource) -> None:
    (batch,) = source.batches(7, seed=0)
    numbers = batch.indices.tolist()
    views = source.views(batch, torch.Generator())
    for spec, letter in zip(TEXT, "abc", strict=True):
        assert shown(source, views[spec]) == [f"{letter}{number}" for number in numbers]
    assert torch.equal(source.center(batch), views[TEXT[0]])


def test_a_later_view_is_the_next_sentence_of_the_document(source: SentenceSource) -> None:
    specs = [ViewSpec(future, future, "text") for future in range(3)]
    (batch,) = source.showing(specs).everything(7)
    views = source.views(batch, torch.Generator())
    assert shown(source, views[specs[1]]) == ["a1", "a2", "a3", "a3", "a5", "a6", "a6"]
    assert shown(source, views[specs[2]]) == ["a2", "a3", "a3", "a3", "a6", "a6", "a6"]


def test_without_positives_both_views_are_the_sentence(tmp_path: Path, source: SentenceSource) -> None:
    alone = SentenceSource(read_sentences(written(tmp_path, "a\nb\n")), source.tokenizer, 6, CPU)
    (batch,) = alone.showing(TEXT[:2]).everything(2)
    views = alone.views(batch, torch.Generator())
    assert torch.equal(views[TEXT[0]], views[TEXT[1]])
    with pytest.raises(UserError, match=r"^data must have 3 texts in a line, .* got 1 in sentences\.txt: .*$"):
        alone.showing(TEXT)


def test_an_epoch_is_a_permutation_shared_by_processes_and_resumed_anywhere(source: SentenceSource) -> None:
    whole = [batch.indices for batch in source.batches(3, seed=5, epoch=2)]
    assert len(whole) == source.batches_per_epoch(3) == 2
    assert len(set(torch.cat(whole).tolist())) == 6
    shares = [source.batches(3, seed=5, epoch=2, start_batch=1, rank=rank, world_size=2) for rank in range(2)]
    assert torch.equal(torch.cat([next(share).indices for share in shares]), whole[1])
    assert [batch.indices.tolist() for batch in source.batches(3, seed=5, epoch=3)] != [w.tolist() for w in whole]


@pytest.fixture
def uneven(tmp_path: Path, source: SentenceSource) -> SentenceSource:
    """Texts of one to four letters, and their positives of other lengths."""
    sentences = read_sentences(written(tmp_path, "a\tbb\nab\tbbb\nabc\tb\nabca\tbbbb\nb\tb\n"))
    return SentenceSource(sentences, Tokenizer.train(["a"], SMALLEST), 20, CPU)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_a_batch_has_as_many_columns_as_its_longest_text_in_all_processes(
    uneven: SentenceSource, world_size: int
) -> None:
    specs = [*TEXT[:2], ViewSpec(0, 1, "text")]
    uneven.showing(specs)
    rows = ["a", "ab", "abc", "abca", "b"], ["bb", "bbb", "b", "bbbb", "b"], ["ab", "abc", "abca", "b", "b"]
    for epoch in range(3):
        shares = [
            uneven.batches(3, seed=1, epoch=epoch, rank=rank, world_size=world_size) for rank in range(world_size)
        ]
        for parts in zip(*shares, strict=True):
            places = [place for part in parts for place in part.indices.tolist()]
            assert len(places) == 3
            views = [uneven.views(part, torch.Generator()) for part in parts]
            for spec, column in zip(specs, rows, strict=True):
                tokens = torch.cat([view[spec] for view in views])  # the same width in each
                texts = [column[place] for place in places]
                assert shown(uneven, tokens) == texts
                # With the space before the text, its start and its end, a token for each letter.
                assert tokens.shape == (3, max(map(len, texts)) + 3)
            assert torch.equal(
                torch.cat([uneven.center(part) for part in parts]), torch.cat([v[TEXT[0]] for v in views])
            )


def test_a_steps_hidden_tokens_are_the_same_in_any_process_and_after_a_resume(uneven: SentenceSource) -> None:
    spec = ViewSpec(0, modality="text", masked=True)
    uneven.showing([TEXT[0], spec])

    def drawn(**arguments: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        batches = list(uneven.batches(2, **{"seed": 1, "epoch": 3, **arguments}))
        assert all(batch.hidden is not None for batch in batches)
        return [(uneven.views(batch, torch.Generator())[spec], batch.hidden) for batch in batches]  # type: ignore[misc]

    whole = drawn()
    assert len(whole) == 2
    for together, shares in zip(
        whole, zip(*(drawn(rank=rank, world_size=2) for rank in range(2)), strict=True), strict=True
    ):
        for part in range(2):
            assert torch.equal(together[part], torch.cat([share[part] for share in shares]))
    for one, again in zip(whole[1], drawn(start_batch=1)[0], strict=True):
        assert torch.equal(one, again)
    epochs = {repr([hidden.tolist() for _, hidden in drawn(epoch=epoch)]) for epoch in range(8)}
    assert len(epochs) > 4
