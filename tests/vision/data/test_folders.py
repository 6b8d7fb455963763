"""Folders of images: classes, splits, digits and subsets compared with what was saved; errors by their message."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from curl_rl.runs.console import printable
from curl_rl.vision.data import balanced_subset, folders, load
from curl_rl.vision.data.image_sets import ResidentImages
from helpers.image_folders import as_tensor, images_of, loaders, make_classes, pixels, save


def test_a_folder_by_class_gives_the_pixels_that_were_saved_and_the_classes_in_order(tmp_path: Path) -> None:
    make_classes(tmp_path, cat=2, ant=3)
    for images in loaders(tmp_path):
        assert (len(images), images.size, images.classes, images.skipped) == (5, 6, ("ant", "cat"), ())
        (batch,) = images.batches(5, shuffle=False)
        # ant was drawn after the two cats
        assert torch.equal(batch.images, torch.stack([as_tensor(pixels(number)) for number in (2, 3, 4, 0, 1)]))
        assert batch.labels is not None
        assert batch.labels.tolist() == images.required_labels().tolist() == [0, 0, 0, 1, 1]
        assert batch.indices.tolist() == [0, 1, 2, 3, 4]


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    for number, name in enumerate(("b.png", "a.PNG", "c.bmp")):
        save(tmp_path / name, pixels(number))
    for images in loaders(tmp_path):
        (batch,) = images.batches(3, shuffle=False)
        assert batch.labels is None
        assert images.classes == ()
        assert torch.equal(batch.images, torch.stack([as_tensor(pixels(number)) for number in (1, 0, 2)]))
        with pytest.raises(
            ValueError, match=r"labels are needed, but .* has none: put its images into <class>/ folders"
        ):
            images.required_labels()


def test_hidden_files_other_files_and_empty_folders_are_ignored(tmp_path: Path) -> None:
    make_classes(tmp_path, cat=2, dog=1)
    for stray in (".hidden.png", ".cache/a.png", "cat/.b.png", "cat/.thumbs/c.png"):
        save(tmp_path / stray, pixels(50))
    (tmp_path / "README.txt").write_text("about")
    (tmp_path / "dog" / "labels.csv").write_text("1,2")
    (tmp_path / "empty").mkdir()
    save(tmp_path / "dog" / "deeper" / "x.png", pixels(3))
    images = load(tmp_path)
    assert (len(images), images.classes) == (4, ("cat", "dog"))
    assert torch.equal(images_of(images)[3], as_tensor(pixels(3)))


@pytest.mark.parametrize("test_name", ["test", "val"])
def test_splits_are_found_and_number_their_classes_alike(tmp_path: Path, test_name: str) -> None:
    make_classes(tmp_path / "train", ant=1, bee=1, cat=1)
    make_classes(tmp_path / test_name, cat=1, dog=1)
    (tmp_path / "meta").mkdir()
    train, test = load(tmp_path, "train"), load(tmp_path, "test")
    assert train.classes == test.classes == ("ant", "bee", "cat", "dog")
    assert train.required_labels().tolist() == [0, 1, 2]
    assert test.required_labels().tolist() == [2, 3]


def test_a_folder_without_splits_is_for_training(tmp_path: Path) -> None:
    make_classes(tmp_path, bus=1, train=2)
    assert load(tmp_path).classes == ("bus", "train")
    with pytest.raises(ValueError, match=r"has no test images: put them into .*test, next to .*train"):
        load(tmp_path, "test")


def test_a_training_split_alone_has_no_test_images(tmp_path: Path) -> None:
    make_classes(tmp_path / "train", ant=1, bee=1)
    assert load(tmp_path).classes == ("ant", "bee")
    with pytest.raises(ValueError, match=r"has no test images: neither .*test nor .*val exists"):
        load(tmp_path, "test")


def test_a_link_back_to_a_folder_above_is_not_followed(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "deeper").mkdir(parents=True)
        Image.new("RGB", (6, 6)).save(tmp_path / name / "deeper" / "1.png")
    (tmp_path / "a" / "back").symlink_to(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    Image.new("RGB", (6, 6)).save(tmp_path / "elsewhere" / "2.png")
    (tmp_path / "b" / "linked").symlink_to(tmp_path / "elsewhere")
    images = load(str(tmp_path))
    assert images.labels is not None
    counts = dict(zip(images.classes, images.labels.bincount().tolist(), strict=True))
    assert counts == {"a": 1, "b": 2, "elsewhere": 1}


# ------------------------------------------------------------------- bad input


def test_folders_that_cannot_be_learned_from_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no folder .*nowhere"):
        load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no images"):
        load(tmp_path)
    save(tmp_path / "a.png", pixels(0))
    with pytest.raises(ValueError, match=r"no folder .*a.png: it is a file"):
        load(tmp_path / "a.png")
    with pytest.raises(ValueError, match="has 1 readable image: training needs at least two"):
        load(tmp_path)
    save(tmp_path / "cat" / "b.png", pixels(0))
    with pytest.raises(ValueError, match=r"holds both images and folders of images: .*a.png belongs to no class"):
        load(tmp_path)


def test_a_folder_of_broken_images_is_refused(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match="none of the 2 images in .* can be read"):
        load(tmp_path)


def test_one_class_is_refused_only_where_labels_are_needed(tmp_path: Path) -> None:
    images = load(make_classes(tmp_path, ant=3))
    with pytest.raises(ValueError, match="two or more classes are needed, but .* has only one: ant"):
        images.required_labels()


def test_an_image_smaller_than_the_size_is_named(tmp_path: Path) -> None:
    for number, side in enumerate((9, 5, 8)):
        save(tmp_path / f"{number}.png", pixels(number, side, side + 2))
    with pytest.raises(
        ValueError,
        match=r"image_size 9 is larger than 2 images in .*, such as .*1.png with 5 pixels: set it to 5 or less",
    ):
        load(tmp_path, size=9)
    with pytest.raises(
        ValueError, match=r"image_size is needed: the images in .* have shorter sides from 5 to 9 pixels"
    ):
        load(tmp_path)
    assert load(tmp_path, size=5).size == 5


def test_small_images_are_scaled_up_or_skipped_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "a" / "large.png", pixels(1, 8))
    save(tmp_path / "b" / "small.png", np.full((2, 4, 3), 90, np.uint8))
    save(tmp_path / "b" / "right.png", pixels(2, 4))
    for choice in ("upscale", "auto"):  # auto: fewer than half are small
        (images, _) = loaders(tmp_path, size=4, small_images=choice)
        assert torch.equal(images_of(images)[1], as_tensor(pixels(2, 4)))
        assert (images_of(images)[2] == 90).all()
    line = f"scaled up 1 of 3 images, which are smaller than image_size 4, such as {tmp_path}/b/small.png with 2 pixels"
    assert capsys.readouterr().err.count(line) == 4
    for images in loaders(tmp_path, size=4, small_images="skip"):
        assert images.required_labels().tolist() == [0, 1]
        assert images.skipped == (f"{tmp_path}/b/small.png",)
        assert torch.equal(images_of(images)[1], as_tensor(pixels(2, 4)))
    said = capsys.readouterr().err
    assert said.count(line.replace("scaled up", "skipped")) == 2
    assert "cannot be read" not in said
    with pytest.raises(ValueError, match="image_size 4 is larger than 1 image in .* or set small_images to upscale or"):
        load(tmp_path, size=4, small_images="refuse")


def test_scaling_up_is_bilinear(tmp_path: Path) -> None:
    small = pixels(1, 4)
    for name in ("a.png", "b.png"):
        save(tmp_path / name, small)
    expected = torch.nn.functional.interpolate(as_tensor(small)[None].float(), size=8, mode="bilinear")[0]
    assert (images_of(load(tmp_path, size=8, small_images="upscale"))[0] - expected).abs().max() <= 1


@pytest.mark.parametrize(
    "fields", [{"split": "validation"}, {"storage": "disk"}, {"size": 0}, {"workers": -1}, {"small_images": "crop"}]
)
def test_impossible_settings_are_refused(tmp_path: Path, fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        load(tmp_path, **fields)  # type: ignore[arg-type]


# ------------------------------------------------------------------- warnings


def test_images_with_nothing_to_see_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = np.random.default_rng(0).integers(0, 4096, (2, 16, 16), dtype=np.uint16)  # of 12 bits, in files of 16
    for number, image in enumerate(values):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    loaders(tmp_path)
    mean, spread = (values // 256).mean(), (values // 256).std((1, 2)).max()
    line = f"nearly constant, around {mean:.0f} of 255 with a standard deviation of at most {spread:.1f}"
    assert capsys.readouterr().err.count(line) == 2
    save(tmp_path / "2.png", pixels(0, 16))
    loaders(tmp_path)
    assert "nearly constant" not in capsys.readouterr().err


def test_classes_that_differ_only_in_case_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, name in enumerate(("Cat", "cat", "caf\u00e9", "cafe\u0301", "dog")):
        save(tmp_path / name / "a.png", pixels(number))
    assert len(load(tmp_path).classes) == 5
    line = "classes of almost the same name are counted as different ones: Cat and cat, cafe\u0301 and caf\u00e9\n"
    assert line in capsys.readouterr().err


def test_many_unreadable_images_are_not_all_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_classes(tmp_path, cat=2)
    for number in range(25):
        (tmp_path / "cat" / f"x{number}.png").touch()
    assert len(load(tmp_path).skipped) == 25
    said = capsys.readouterr().err.splitlines()
    assert sum("cannot be read: it is empty" in line for line in said) == 20
    assert "and 5 more" in said


# ------------------------------------------------------------------- names


def test_names_are_printable_whatever_the_files_are_called(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "da\x1b[31mta"
    save(folder / "two\nlines" / "a.png", pixels(0))
    save(folder / "caf\udce9" / "b.png", pixels(1))
    (folder / "caf\udce9" / "\x1b]0;title\x07.png").touch()
    images = load(folder)
    assert images.classes == ("caf\\xe9", "two\\x0alines")
    assert len(images) == 2
    said = capsys.readouterr().err
    assert "skipped " + printable(f"{folder}/caf\udce9/\x1b]0;title\x07.png") in said
    assert not [character for character in said if not character.isprintable() and character not in "\n\r"]


# ------------------------------------------------------------------- digits


def test_the_digits_are_scikit_learns_split_within_each_class() -> None:
    original = pytest.importorskip("sklearn.datasets").load_digits()
    train, test = load("digits"), load("digits", "test")
    assert isinstance(train, ResidentImages)
    assert isinstance(test, ResidentImages)
    # scikit-learn documents 178, 182, 177, 183, 181, 182, 181, 179, 174 and 180 images of the ten digits.
    assert test.required_labels().bincount().tolist() == [35, 36, 35, 36, 36, 36, 36, 35, 34, 36]
    assert train.required_labels().bincount().tolist() == [143, 146, 142, 147, 145, 146, 145, 144, 140, 144]
    zeros = original.images[original.target == 0]
    assert test.images.shape[1:] == (3, 8, 8)
    for channel in range(3):
        expected = torch.tensor(zeros[4::5] * 255 / 16)
        assert (test.images[test.required_labels() == 0][:, channel] - expected).abs().max() <= 0.5
    assert train.images.max() == 255
    everything = torch.cat([train.images, test.images])[:, 0].double() * 16 / 255
    assert everything.sum().item() == pytest.approx(original.images.sum(), rel=1e-3)


def test_digits_are_scaled_up_as_asked_and_not_down() -> None:
    pytest.importorskip("sklearn")
    small, large = load("digits", "test"), load("digits", "test", 32)
    assert isinstance(small, ResidentImages)
    assert isinstance(large, ResidentImages)
    assert large.images.shape == (355, 3, 32, 32)
    means = torch.nn.functional.avg_pool2d(large.images.float(), 4)
    corner = small.images[:, :, 0, 0].float()
    assert (large.images[:, :, 0, 0] - corner).abs().max() <= 1
    assert (means - small.images).abs().mean() < 20
    with pytest.raises(ValueError, match="size must be at least 8, got 7"):
        load("digits", size=7)


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(
        ValueError, match=r"the digits need scikit-learn: pip install -e '\.\[vision\]' in curl_rl's clone"
    ):
        load("digits")


# ------------------------------------------------------------------- subsets


def test_test_images_of_an_unseen_class_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_classes(tmp_path / "train", ant=2, bee=1)
    make_classes(tmp_path / "test", ant=1, Bee=2, wasp=1)
    sets = [load(tmp_path, split) for split in ("train", "test")]
    folders.warn_about_unseen_classes(*sets)
    line = "train has no image of Bee, wasp: 3 of 4 test images must count as wrong"
    assert capsys.readouterr().err.strip().endswith(line)
    folders.warn_about_unseen_classes(sets[0], sets[0])
    assert not capsys.readouterr().err


def test_a_balanced_subset_has_its_documented_size_in_each_class() -> None:
    labels = torch.arange(10).repeat(5000)
    for fraction, each in ((0.01, 50), (0.1, 500), (1.0, 5000)):
        chosen = balanced_subset(labels, fraction, seed=0)
        assert labels[chosen].bincount().tolist() == [each] * 10
        assert (chosen.diff() > 0).all(), "ascending, so none twice"


def test_every_class_contributes_at_least_one_image_and_at_most_all() -> None:
    labels = torch.tensor([3] * 17 + [7] * 2 + [1])
    assert labels[balanced_subset(labels, 0.01, seed=0)].tolist() == [3, 7, 1]
    # 0.5 · 20 / 3 = 3.33 and 0.375 · 20 / 3 = 2.5 each
    assert labels[balanced_subset(labels, 0.5, seed=0)].tolist() == [3, 3, 3, 7, 7, 1]
    assert labels[balanced_subset(labels, 0.375, seed=0)].tolist() == [3, 3, 3, 7, 7, 1]
    assert labels[balanced_subset(labels, 0.37, seed=0)].tolist() == [3, 3, 7, 7, 1]


def test_a_fraction_of_one_takes_all_of_unequal_classes() -> None:
    labels = torch.tensor([0] * 60 + [1] * 10 + [0] * 40)
    assert balanced_subset(labels, 1.0, seed=0).tolist() == list(range(110))
    # 0.99 · 110 / 2 = 54.45 each
    assert labels[balanced_subset(labels, 0.99, seed=0)].bincount().tolist() == [54, 10]


def test_a_subset_depends_on_its_seed_and_is_contained_in_larger_ones() -> None:
    labels = torch.arange(4).repeat(100)
    one, ten = (balanced_subset(labels, fraction, seed=1) for fraction in (0.01, 0.1))
    assert torch.equal(one, balanced_subset(labels, 0.01, seed=1))
    assert not torch.equal(one, balanced_subset(labels, 0.01, seed=2))
    assert set(one.tolist()) < set(ten.tolist())


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.01])
def test_impossible_fractions_are_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="fraction must be above 0 and at most 1"):
        balanced_subset(torch.zeros(3, dtype=torch.int64), fraction, seed=0)


def test_a_subset_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"labels must be \(N,\) with N at least 1, got \(0,\)"):
        balanced_subset(torch.zeros(0, dtype=torch.int64), 0.5, seed=0)
