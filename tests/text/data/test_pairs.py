"""Images with captions: joined by their files, whatever the layout of the folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from curl_rl.runs.errors import UserError
from curl_rl.text.data.pairs import load_pairs
from curl_rl.text.data.tables import captions_text
from helpers.image_folders import pixels, save


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images for training in two classes, two of which are the same picture, and two for testing."""
    for number, name in (
        (0, "train/cat/a"),
        (1, "train/cat/b"),
        (0, "train/dog/c"),
        (3, "test/dog/d"),
        (4, "test/cat/e"),
    ):
        save(tmp_path / f"{name}.png", pixels(number))
    rows = [
        ("train/dog/c.png", "a dog"),
        ("train/cat/a.png", "a cat"),
        ("train/cat/a.png", "an animal"),
        ("train/cat/b.png", "an animal"),
        ("./test/dog/d.png", "a hound"),
        ("test/cat/e.png", "a kitten"),
    ]
    (tmp_path / "captions.tsv").write_text(captions_text(rows))
    return tmp_path


@pytest.mark.parametrize("storage", ["memory", "stream"])
def test_captions_belong_to_their_images_and_repeats_are_known(folder: Path, storage: str) -> None:
    pairs = load_pairs(folder, storage=storage, workers=0)  # type: ignore[arg-type]
    assert len(pairs) == 3
    captions = [[pairs.texts[place] for place in own] for own in pairs.captions]
    assert captions == [["a cat", "an animal"], ["an animal"], ["a dog"]]
    assert pairs.images.classes == ("cat", "dog")
    assert pairs.contents.tolist() == [0, 1, 0], "the first and the last are one picture"
    (batch,) = pairs.images.batches(3, shuffle=False)
    assert (batch.images[0] == batch.images[2]).all()


def test_the_test_images_have_their_own(folder: Path) -> None:
    pairs = load_pairs(folder, "test")
    assert pairs.texts == ("a kitten", "a hound")


def test_the_identity_is_that_of_images_and_captions_wherever_the_folder_is(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    moved = tmp_path_factory.mktemp("moved") / "other"
    shutil.copytree(folder, moved)
    assert load_pairs(moved).identity == load_pairs(folder).identity
    table = moved / "captions.tsv"
    table.write_text(table.read_text().replace("a dog", "a wolf"))
    assert load_pairs(moved).identity != load_pairs(folder).identity


def test_another_table_may_be_named(folder: Path) -> None:
    rows = [(f"train/{name}.png", f"Bild {name}") for name in ("cat/a", "cat/b", "dog/c")]
    (folder / "captions.de.tsv").write_text(captions_text(rows))
    assert load_pairs(folder, captions="captions.de.tsv").texts == ("Bild cat/a", "Bild cat/b", "Bild dog/c")


def test_an_image_without_a_caption_and_a_folder_without_a_table_are_refused(folder: Path) -> None:
    save(folder / "train" / "dog" / "z.png", pixels(9))
    with pytest.raises(UserError, match=r"captions\.tsv has no caption for 1 of 4 images, such as train/dog/z\.png"):
        load_pairs(folder)
    (folder / "captions.tsv").unlink()
    with pytest.raises(UserError, match=r"has no captions\.tsv, which names the caption of each image"):
        load_pairs(folder)
    with pytest.raises(UserError, match="^no folder "):
        load_pairs(folder / "nowhere")
