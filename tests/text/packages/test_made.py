"""Made data: pictures that show what their captions say, and sentences that mean what their scores say."""

from __future__ import annotations

from pathlib import Path

from curl_rl.text.data.shapes import SHAPES
from curl_rl.text.data.tables import read_captions, read_scored
from curl_rl.text.packages import made
from curl_rl.text.packages.prepared import PreparedSet


def prepared(folder: Path, count: int, seed: int = 0) -> Path:
    folder.mkdir()
    made.prepare_shapes(PreparedSet(folder), count=count, seed=seed)
    return folder


def test_a_scene_is_in_one_part_whichever_shape_is_named_first(tmp_path: Path) -> None:
    captions = read_captions(prepared(tmp_path / "a", count=300) / "captions.tsv")
    parts: dict[str, set[str]] = {}
    for file, own in captions.items():
        parts.setdefault(min(own), set()).add(file.partition("/")[0])
    assert {len(found) for found in parts.values()} == {1}
    share = sum(file.startswith("test/") for file in captions) / 300
    assert 0.1 < share < 0.3
    assert {file.split("/")[1] for file in captions} == set(SHAPES)


def test_the_seed_decides_every_byte(tmp_path: Path) -> None:
    first, again, other = (
        prepared(tmp_path / name, count=24, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )

    def content(folder: Path) -> dict[str, bytes]:
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")}

    assert content(first) == content(again) != content(other)


def test_the_grammars_pairs_are_judged_by_what_they_are(tmp_path: Path) -> None:
    made.prepare_grammar(PreparedSet(tmp_path), count=60, seed=0)
    paraphrase, contradiction = {}, {}
    for line in (tmp_path / "triples.tsv").read_text().splitlines():
        sentence, same, opposite = line.split("\t")
        paraphrase.setdefault(sentence, set()).add(same)
        contradiction.setdefault(sentence, set()).add(opposite)
    pairs = read_scored(tmp_path / "scored.tsv")
    assert [pair.score for pair in pairs[:6]] == [0, 1, 2, 0, 1, 2]
    for score, first, second in pairs:
        assert (second in paraphrase[first]) == (score == 2)
        assert (second in contradiction[first]) == (score == 1)
    sentences = (tmp_path / "sentences.txt").read_text().splitlines()
    assert set(sentences) == set(paraphrase)
