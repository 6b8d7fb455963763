"""Tux Paint's stamps: captions by language, squares with alpha, and what is left out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curl_rl.runs.errors import UserError
from curl_rl.text.data.split import part_of
from curl_rl.text.data.tables import read_captions
from curl_rl.text.packages.prepared import PreparedSet
from curl_rl.text.packages.stamps import prepare_stamps
from helpers import packages


def test_stamps_are_squares_with_their_captions_by_folder_of_topics(tmp_path: Path) -> None:
    into = tmp_path / "set"
    into.mkdir()
    written = PreparedSet(into)
    prepare_stamps([packages.stamps(tmp_path / "p")], written, ["en", "es"])
    apple, cat = f"{part_of('an apple.', 0.2)}/food/fruit_apple.png", f"{part_of('a cat.', 0.2)}/animals/cat.png"
    assert read_captions(into / "captions.tsv") == {apple: ("An apple.",), cat: ("A cat.",)}
    assert read_captions(into / "captions.es.tsv") == {apple: ("Una manzana.",)}
    counts = written.facts["images"]
    assert counts["train"] + counts["test"] == 2
    assert counts["without pixels"] == 1
    with Image.open(into / apple) as image:
        alpha = np.asarray(image)[..., 3]
    # 8 × 4 pixels become 128 × 64, with 32 transparent rows above and below.
    assert alpha.shape == (128, 128)
    assert alpha[32:96].min() == 255
    assert alpha[:31].max() == alpha[97:].max() == 0
    assert json.loads((into / "provenance.json").read_text())["packages"][0]["license"] == "GPL-2"


def test_a_language_without_captions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the stamps have no captions in fr: choose another --language, or en for none"):
        prepare_stamps([packages.stamps(tmp_path / "p")], PreparedSet(tmp_path), ["en", "fr"])
