"""Searching pictures by texts: by cosine, shown on a page, in a folder and among the built-in pictures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from curl_rl.commands.search_images import main
from curl_rl.text.data.pairs import load_pairs
from curl_rl.text.pair_encoder import PairEncoder, load_pair_encoder
from curl_rl.text.search import index_pictures, pictures_at, search
from helpers.image_folders import pixels, save
from helpers.small_pairs import save_pairs

pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pairs")
    save_pairs(directory)
    return directory


@pytest.fixture
def encoder(run: Path) -> PairEncoder:
    return load_pair_encoder(run)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    photos = tmp_path / "photos"
    for number in range(4):
        save(photos / "below" / f"{number}.png", pixels(number, 12))
    (photos / "broken.png").write_bytes(b"no image")
    return photos


def test_the_search_finds_by_cosine(encoder: PairEncoder, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = index_pictures(encoder, pictures_at(str(folder)), torch.device("cpu"))
    assert [Path(name).name for name in index.names] == ["0.png", "1.png", "2.png", "3.png"]
    (hits,) = search(encoder, index, ["a red apple"], 3)
    cosines = index.vectors @ encoder.embed_texts(["a red apple"])[0]
    assert [hit.name for hit in hits] == [index.names[place] for place in cosines.argsort(descending=True)[:3]]
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert "skipped" in capsys.readouterr().err


def test_what_is_found_is_shown_on_a_page(run: Path, folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "out" / "found.html"
    assert main([str(run), str(folder), "a <b>red</b> apple", "--most", "2", "--out", str(page)]) == 0
    text = page.read_text()
    assert text.count("<img ") == 2
    assert "a &lt;b&gt;red&lt;/b&gt; apple" in text
    assert f"4 images of {folder}" in text
    assert re.search(r">-?\d\.\d{3} below/\d\.png<", text)
    assert "http" not in text.replace("http-equiv", "")
    assert "default-src 'none'" in text


def test_the_built_in_pictures_are_searched(
    run: Path, encoder: PairEncoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "found.html"
    assert main([str(run), "shapes", "a red circle", "--most", "3", "--out", str(page), "--device", "cpu"]) == 0
    unseen = load_pairs("shapes", "test", encoder.image_size)
    cosines = encoder.embed_images(unseen.images.everything().images) @ encoder.embed_texts(["a red circle"])[0]
    best = int(cosines.argmax())
    caption = unseen.texts[unseen.captions[best][0]]
    assert capsys.readouterr().out.startswith(f"a red circle: {best}: {caption} ({cosines[best]:.3f})")
    text = page.read_text()
    assert f"{len(unseen)} images of shapes (test)" in text
    assert text.count("<img ") == 3


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["nowhere", "a cat"], "no folder nowhere: name a folder of images, or shapes, the built-in ones"),
        (["file", "a cat"], "no folder file: it is a file: name a folder of images"),
        (["empty", "a cat"], "empty must hold images, and has none that can be read"),
        (["empty", "a cat", " "], "each TEXT must say what to look for, got an empty one"),
        (["empty", "a cat", "--most", "0"], "--most must be at least 1, got 0"),
    ],
)
def test_a_mistake_is_one_line(
    run: Path,
    tmp_path: Path,
    words: list[str],
    line: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("file").touch()
    with pytest.raises(SystemExit) as ended:
        main([str(run), *words])
    assert ended.value.code == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert line in said
