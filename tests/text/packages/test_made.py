"""Made data: pictures that show what their captions say, and sentences that mean what their scores say."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np

from curl_rl.text.data.tables import read_captions, read_scored
from curl_rl.text.packages import made
from curl_rl.text.packages.prepared import PreparedSet


def prepared(folder: Path, **arguments: int) -> Path:
    folder.mkdir()
    made.prepare_shapes(PreparedSet(folder), **arguments)
    return folder


def test_colors_are_where_the_caption_says() -> None:
    rng = random.Random(3)
    for number in range(40):
        scene = made.draw_scene(rng, made.SHAPES[number % 4])
        pixels = np.asarray(made.picture(scene, rng)).astype(int)
        centers = []
        for color, _ in (scene.first, scene.second):
            rows, columns = (np.abs(pixels - made.COLORS[color]).sum(2) == 0).nonzero()
            assert len(rows) > 20, f"{color} is in the picture"
            centers.append(np.array([columns.mean(), rows.mean()]))
        right, down = centers[0] - centers[1]
        sideways, upright = "right of" if right > 0 else "left of", "below" if down > 0 else "above"
        assert scene.relation == (sideways if abs(right) > abs(down) else upright)


def test_both_captions_describe_the_same_scene() -> None:
    scene = made.Scene(("red", "circle"), "above", ("blue", "square"))
    assert scene.captions == ("a red circle above a blue square", "a blue square below a red circle")


def test_a_scene_is_in_one_part_whichever_shape_is_named_first(tmp_path: Path) -> None:
    captions = read_captions(prepared(tmp_path / "a", count=300) / "captions.tsv")
    parts: dict[str, set[str]] = {}
    for file, own in captions.items():
        parts.setdefault(min(own), set()).add(file.partition("/")[0])
    assert {len(found) for found in parts.values()} == {1}
    share = sum(file.startswith("test/") for file in captions) / 300
    assert 0.1 < share < 0.3
    assert {file.split("/")[1] for file in captions} == set(made.SHAPES)


def test_the_seed_decides_every_byte(tmp_path: Path) -> None:
    first, again, other = (
        prepared(tmp_path / name, count=24, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )

    def content(folder: Path) -> dict[str, bytes]:
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")}

    assert content(first) == content(again) != content(other)


def test_scores_count_the_slots_of_the_same_meaning(tmp_path: Path) -> None:
    made.prepare_grammar(PreparedSet(tmp_path), count=400)
    meaning = {word: words[0] for slot in made._SLOTS for words in slot for word in words}
    meaning |= {"the": "the"}
    pairs = read_scored(tmp_path / "scored.tsv")
    assert len(pairs) == 100
    assert {pair.score for pair in pairs} == {0, 1, 2, 3, 4, 5}
    for score, first, second in pairs:
        words = zip(first.split(), second.split(), strict=True)
        assert sum(meaning[one] == meaning[other] for one, other in words if one != "the") == score
    for line in (tmp_path / "triples.tsv").read_text().splitlines():
        sentence, positive, negative = line.split("\t")
        assert sentence != positive
        assert [meaning[word] for word in positive.split()] == sentence.split()
        changed = [one for one, other in zip(sentence.split(), negative.split(), strict=True) if one != other]
        assert changed == [sentence.split()[1]], "the adjective alone"
