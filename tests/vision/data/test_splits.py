"""Layouts of folders written down as lists of files, with what each is to be taken for."""

from __future__ import annotations

from pathlib import Path

import pytest

from curl_rl.vision.data import load
from curl_rl.vision.data.splits import find_splits
from helpers.image_folders import images_of, make_classes, pixels, save


def lay_out(folder: Path, paths: str) -> str:
    """Creates empty files of these names, and folders for names that end in a slash."""
    for path in paths.split():
        target = folder / path.replace("%", " ")
        (target if path.endswith("/") else target.parent).mkdir(parents=True, exist_ok=True)
        if not path.endswith("/"):
            target.touch()
    return str(folder)


@pytest.mark.parametrize("train", ["train", "Train", "TRAINING", "training_set", "Train%Set"])
@pytest.mark.parametrize(
    "held_out",
    ["test", "Testing", "test-set", "val", "Valid", "validation", "dev", "holdout", "hold-out", "held_out", "eval"],
)
def test_a_training_and_a_held_out_split_are_found_by_any_of_their_names(
    tmp_path: Path, train: str, held_out: str
) -> None:
    found = find_splits(lay_out(tmp_path, f"{train}/a/1.png {train}/b/1.png {held_out}/b/1.png {held_out}/c/1.png"))
    assert found.train == (str(tmp_path / train.replace("%", " ")), ("a", "b", "c"))
    assert found.test == (str(tmp_path / held_out), ("a", "b", "c"))


@pytest.mark.parametrize(
    ("paths", "train", "test", "classes"),
    [
        ("a/1.png b/deep/1.png", "", None, "a b"),
        ("1.png 2.png", "", None, ""),
        ("train/1.png test/1.png", "train", "test", ""),
        ("train/a/1.png train/b/1.png", "train", None, "a b"),
        # Folders without images do not count, nor do hidden ones.
        ("train/a/1.png train/b/1.png docs/x.txt empty/ .cache/1.png", "train", None, "a b"),
        ("train/a/1.png test/", "train", None, "a"),
        ("a/1.png test/", "", None, "a"),
        # Test images take precedence; classes of all splits are numbered alike.
        ("train/a/1.png val/b/1.png test/c/1.png", "train", "test", "a b c"),
        ("train/a/1.png val/a/1.png dev/a/1.png test/a/1.png", "train", "test", "a"),
        # Others next to two splits are not used.
        ("train/a/1.png test/a/1.png unlabeled/1.png logo.png", "train", "test", "a"),
        # A class may have a split's name, or begin like one.
        ("train/1.png bus/1.png", "", None, "bus train"),
        (
            "trainer/1.png tester/1.png bullet-train/1.png test-tube/1.png",
            "",
            None,
            "bullet-train test-tube tester trainer",
        ),
        ("train/valid/1.png train/train/1.png", "train", None, "train valid"),
        # The training images may lack classes that the test images have.
        ("train/1.png test/a/1.png", "train", "test", ""),
    ],
)
def test_a_layout_is_taken_for(tmp_path: Path, paths: str, train: str, test: str | None, classes: str) -> None:
    found = find_splits(lay_out(tmp_path, paths))
    assert found.train == (str(tmp_path / train) if train else str(tmp_path), tuple(classes.split()))
    assert (found.test and found.test.folder) == (test and str(tmp_path / test))


@pytest.mark.parametrize(
    ("paths", "named", "remedy"),
    [
        ("test/1.png valid/1.png", "test but no training split", "rename the folder of the training images train"),
        ("cat/1.png dog/1.png test/cat/1.png", "test next to cat, dog but no training", "rename"),
        ("valid/1.png invalid/1.png", "valid next to invalid", r"if valid is a class, move all classes into .*/train"),
        ("train/1.png Training/1.png test/1.png", "Training and train", "rename or remove all but one"),
        ("train/1.png test/1.png Test/1.png", "Test and test", "rename or remove all but one"),
        ("train/1.png dev/1.png val/1.png", "dev and val", "rename or remove all but one"),
        ("train/a/1.png extra/1.png", "train, which holds folders of images, next to extra", "move these away"),
        ("train2017/1.png val2017/1.png", "train2017 and val2017", "rename them train and test"),
        ("trainA/1.png testA/1.png trainB/1.png testB/1.png", "trainA and testA", "rename them train and test"),
        ("seg_train/a/1.png seg_test/a/1.png seg_pred/1.png", "seg_train and seg_test", "rename them train and test"),
    ],
)
def test_what_could_be_either_is_refused_by_name_with_the_remedy(
    tmp_path: Path, paths: str, named: str, remedy: str
) -> None:
    with pytest.raises(ValueError, match=f"{named}.*{remedy}") as refusal:
        find_splits(lay_out(tmp_path, paths))
    assert "\n" not in str(refusal.value)


def test_classes_with_the_names_of_splits_are_taken_once_moved_into_train(tmp_path: Path) -> None:
    lay_out(tmp_path, "valid/1.png invalid/1.png")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "train").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(ValueError, match="no training split"):
        find_splits(str(tmp_path))
    assert find_splits(str(tmp_path / "linked")).train.classes == ("invalid", "valid")


@pytest.mark.parametrize("inside", ["cat", "dataset/images"])
def test_splits_inside_of_a_class_are_refused(tmp_path: Path, inside: str) -> None:
    make_classes(tmp_path / "dog", all=2)
    make_classes(tmp_path / inside, train=2, Valid=2)
    with pytest.raises(ValueError, match=rf"{inside} holds train and Valid, which would be mixed in one class"):
        load(tmp_path)


def test_only_the_training_images_are_trained_on(tmp_path: Path) -> None:
    for split, numbers in (("Training", (0, 1)), ("Valid", (2, 3))):
        for number in numbers:
            save(tmp_path / split / "ant" / f"{number}.png", pixels(number))
    train, test = load(tmp_path), load(tmp_path, "test")
    assert images_of(train).float().mean((1, 2, 3)).tolist() == pytest.approx([pixels(n).mean() for n in (0, 1)])
    assert images_of(test).float().mean((1, 2, 3)).tolist() == pytest.approx([pixels(n).mean() for n in (2, 3)])


@pytest.mark.parametrize(
    ("paths", "line"),
    [
        (
            "Train/a/1.png Train/b/1.png Train/c/ valid/a/1.png old/1.png logo.png",
            "Train for training, valid for testing, old, logo.png unused; 2 classes (a, b), no images in c",
        ),
        ("train/1.png", "train for training, nothing for testing; no classes"),
        ("a/1.png b/", "1 class (a), no images in b, no test images"),
        (" ".join(f"{number}/1.png" for number in range(1, 8)), "7 classes (1, 2, 3, 4, 5 and 2 more), no test images"),
    ],
)
def test_one_line_tells_what_was_taken_for_what(tmp_path: Path, paths: str, line: str) -> None:
    assert find_splits(lay_out(tmp_path, paths)).found == f"{tmp_path}: {line}"


def test_the_training_images_bring_the_line_along(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        make_classes(tmp_path / split, ant=2)
    assert load(tmp_path).layout == f"{tmp_path}: train for training, valid for testing; 1 class (ant)"
    assert load(tmp_path, "test").layout == ""
