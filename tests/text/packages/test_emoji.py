"""Emoji: names, groups and pictures, from small packages, and from the real ones where they are installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from curl_rl.runs.errors import UserError
from curl_rl.text.data.split import part_of
from curl_rl.text.data.tables import read_captions
from curl_rl.text.packages import emoji
from curl_rl.text.packages.cldr import find_cldr, read_emoji
from curl_rl.text.packages.prepared import PreparedSet
from helpers import packages


def test_names_keywords_and_groups_are_read_and_skin_tones_left_out(tmp_path: Path) -> None:
    found = {one.text: one for one in read_emoji(find_cldr([packages.cldr(tmp_path)]), ["en"])}
    assert found["🍇"].captions == {"en": ("grapes", "fruit, grape", "fruit", "grape")}
    assert found["🍉"].captions == {"en": ("watermelon", "fruit")}
    assert found["🍇"].code == "1f347"
    # 🍈 lies within a range of the file of groups; Z has none, and both of its neighbors are symbols.
    assert {text: one.group for text, one in found.items()} == {
        **dict.fromkeys("🍇🍈🍉", "food and drink"),
        "🐵": "animals and nature",
        **dict.fromkeys("AZC", "symbols"),
    }


def test_an_emoji_between_two_groups_has_none(tmp_path: Path) -> None:
    packages.cldr(tmp_path)
    labels = tmp_path / packages.CLDR / "properties" / "labels.txt"
    labels.write_text(labels.read_text().replace("🍇-🍉{👨‍🍳}", "🍇"))
    found = [one.text for one in read_emoji(find_cldr([tmp_path]), ["en"])]
    assert found == ["🍇", "🐵", "A", "Z", "C"]


def test_a_sequence_has_the_group_of_its_members(tmp_path: Path) -> None:
    packages.cldr(tmp_path)
    path = tmp_path / packages.CLDR / "annotationsDerived" / "en.xml"
    path.write_text('<ldml><annotations><annotation cp="👨‍🍳" type="tts">cook</annotation></annotations></ldml>')
    cook = read_emoji(find_cldr([tmp_path]), ["en"])[-1]
    assert (cook.group, cook.code, cook.captions["en"]) == ("food and drink", "1f468-200d-1f373", ("cook",))


def test_a_language_is_a_name_among_those_there(tmp_path: Path) -> None:
    packages.cldr(tmp_path)
    with pytest.raises(UserError, match=r"language must be one that .* has, got xx: en, es"):
        read_emoji(find_cldr([tmp_path]), ["en", "xx"])
    with pytest.raises(UserError, match="got ../en"):
        read_emoji(find_cldr([tmp_path]), ["../en"])


def test_emojione_is_written_by_part_and_group_with_captions_in_each_language(tmp_path: Path) -> None:
    roots = [packages.cldr(tmp_path / "p"), packages.emojione(tmp_path / "q", "1F347", "0041", "1F348", "2665")]
    into = tmp_path / "set"
    into.mkdir()
    emoji.prepare_emojione(roots, PreparedSet(into), ["en", "es"])
    files = {path.relative_to(into).as_posix() for path in into.rglob("*.png")}
    # 1F348 has no Spanish name, 2665 no name at all.
    assert files == {f"{part_of('1f347')}/food and drink/1f347.png", f"{part_of('0041')}/symbols/0041.png"}
    captions, spanish = read_captions(into / "captions.tsv"), read_captions(into / "captions.es.tsv")
    assert captions.keys() == spanish.keys() == files
    grapes = next(file for file in files if "1f347" in file)
    assert (captions[grapes][0], spanish[grapes][0]) == ("grapes", "uvas")
    assert "CC BY-SA 4.0" in (into / "LICENSE.txt").read_text()


def test_a_font_draws_what_it_has_centered_and_nothing_else(tmp_path: Path) -> None:
    content = getattr(ImageFont.load_default(20), "font_bytes", None)
    if content is None:
        pytest.skip("this Pillow has no scalable font of its own")
    roots = [packages.cldr(tmp_path), packages.debian(tmp_path, "fonts-noto-color-emoji")]
    packages.write(tmp_path / "usr/share/fonts/truetype/noto/NotoColorEmoji.ttf", content)
    into = tmp_path / "set"
    into.mkdir()
    emoji.prepare_noto(roots, PreparedSet(into), ["en"])
    files = sorted(into.rglob("*.png"))
    assert {path.stem for path in files} == {"0041", "0043", "005a"}, "letters, and no emoji"
    for path in files:
        with Image.open(path) as image:
            assert (image.size, image.mode) == ((128, 128), "RGBA")
            rows, columns = np.asarray(image)[..., 3].nonzero()
        for places in (rows, columns):
            assert abs((places.min() + places.max()) / 2 - 63.5) <= 1


def test_the_held_out_tenth_is_a_tenth_and_depends_on_names_alone() -> None:
    parts = [part_of(f"{number:x}") for number in range(4000)]
    assert abs(parts.count("test") / 4000 - 0.1) < 3 * (0.1 * 0.9 / 4000) ** 0.5
    # By another program: `echo -n 1f347 | sha256sum` begins with 0x1830, which is 0.0945 of 0x10000.
    assert part_of("1f347", 0.095) == "test"
    assert part_of("1f347", 0.094) == "train"
