"""Image sets on folders made here: pixels against what was drawn, orders against each other, mistakes by their line."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from curl_rl.vision.data import balanced_subset, folders, image_sets, load
from curl_rl.vision.data.image_sets import ImageSet, ResidentImages, StreamedImages, epoch_order


def pixels(number: int, height: int = 6, width: int | None = None) -> np.ndarray:
    """An image ``(H, W, 3)`` of its own for each number."""
    generator = np.random.default_rng(number)
    return generator.integers(0, 256, (height, width or height, 3), dtype=np.uint8)


def save(path: Path, image: np.ndarray | Image.Image, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)  # type: ignore[arg-type]


def make_classes(folder: Path, **classes: int) -> Path:
    """So many PNG images in each class."""
    number = 0
    for name, count in classes.items():
        for index in range(count):
            save(folder / name / f"{index:02}.png", pixels(number))
            number += 1
    return folder


def as_tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.transpose(2, 0, 1).copy())


def images_of(images: ImageSet) -> torch.Tensor:
    """All of them, as they lie."""
    (batch,) = images.batches(len(images), shuffle=False, drop_last=False)
    return batch.images


def loaders(folder: Path, **arguments: object) -> list[ImageSet]:
    """The same folder in memory and as a stream, decoded in this process."""
    forms = [load(folder, storage=storage, workers=0, **arguments) for storage in ("memory", "stream")]  # type: ignore[arg-type]
    assert isinstance(forms[0], ResidentImages)
    assert isinstance(forms[1], StreamedImages)
    return forms


# ------------------------------------------------------------------- folders


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
            ValueError, match=r"labels are needed, and .* has none: put its images into <class>/ folders"
        ):
            images.required_labels()


def test_hidden_files_other_files_and_empty_folders_are_passed_over(tmp_path: Path) -> None:
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
    with pytest.raises(ValueError, match=r"has no test images: they would lie in .*test"):
        load(tmp_path, "test")


def test_a_training_split_alone_has_no_test_images(tmp_path: Path) -> None:
    make_classes(tmp_path / "train", ant=1, bee=1)
    assert load(tmp_path).classes == ("ant", "bee")
    with pytest.raises(ValueError, match=r"has no test images: there is no .*test and no .*val"):
        load(tmp_path, "test")


# ------------------------------------------------------------------- pixels


def test_the_largest_centred_square_is_scaled_to_the_size(tmp_path: Path) -> None:
    wide, tall = np.zeros((4, 8, 3), np.uint8), np.zeros((8, 4, 3), np.uint8)
    wide[:, 2:6], tall[2:6] = 200, 100
    for name, image in (("a.png", wide), ("b.png", tall)):
        save(tmp_path / name, image)
    for images in loaders(tmp_path, size=2):
        assert images_of(images)[:, 0].tolist() == [[[200, 200]] * 2, [[100, 100]] * 2]
    for images in loaders(tmp_path):
        assert images.size == 4, "the shorter side of both"
        assert torch.equal(images_of(images)[0], as_tensor(wide[:, 2:6]))


def test_scaling_down_is_antialiased(tmp_path: Path) -> None:
    stripes = np.zeros((16, 16, 3), np.uint8)
    stripes[:, ::2] = 240
    for name in ("a.png", "b.png"):
        save(tmp_path / name, stripes)
    inner = images_of(load(tmp_path, size=4))[0, :, :, 1:3].float()
    assert (inner - 120).abs().max() <= 8, "the mean of the stripes; without antialiasing it would be one of them"


def test_an_odd_margin_is_cut_and_not_blurred(tmp_path: Path) -> None:
    image = pixels(0, 5, 8)
    for name in ("a.png", "b.png"):
        save(tmp_path / name, image)
    assert torch.equal(images_of(load(tmp_path))[0], as_tensor(image[:, 1:6]))


def test_a_large_jpeg_is_decoded_near_what_pillow_makes_of_the_whole(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 160, dtype=np.uint8)
    image = np.stack([np.tile(ramp, (120, 1)), np.tile(ramp[:120, None], (1, 160)), np.full((120, 160), 90)], 2)
    for name in ("a.jpg", "b.jpg"):
        save(tmp_path / name, image.astype(np.uint8), quality=95)
    with Image.open(tmp_path / "a.jpg") as whole:
        expected = np.asarray(whole.crop((20, 0, 140, 120)).resize((24, 24), Image.Resampling.BILINEAR))
    difference = images_of(load(tmp_path, size=24))[0].float() - as_tensor(expected).float()
    assert difference.abs().mean() < 2


def grey(value: int) -> list[int]:
    return [value] * 3


def sixteen_bits() -> Image.Image:
    return Image.fromarray(np.full((4, 4), 200 * 256 + 77, dtype=np.uint16))


def palette_with_transparency(colour: int) -> Image.Image:
    image = Image.new("P", (4, 4), colour)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.info["transparency"] = 0
    return image


@pytest.mark.parametrize(
    ("suffix", "make", "expected"),
    [
        ("png", lambda: Image.new("L", (4, 4), 70), grey(70)),
        ("png", lambda: Image.new("1", (4, 4), 1), grey(255)),
        ("png", sixteen_bits, grey(200)),
        ("tif", sixteen_bits, grey(200)),
        ("png", lambda: Image.new("RGBA", (4, 4), (255, 0, 0, 128)), [255, 127, 127]),
        ("png", lambda: Image.new("LA", (4, 4), (0, 0)), grey(255)),
        ("png", lambda: palette_with_transparency(1), [10, 20, 30]),
        ("png", lambda: palette_with_transparency(0), grey(255)),
        ("jpg", lambda: Image.new("CMYK", (4, 4), (0, 255, 255, 0)), [255, 0, 0]),
        ("gif", lambda: Image.new("P", (4, 4), 0), grey(0)),
        ("webp", lambda: Image.new("RGB", (4, 4), (255, 255, 255)), grey(255)),
        ("ppm", lambda: Image.new("RGB", (4, 4), (1, 2, 3)), [1, 2, 3]),
    ],
)
def test_whatever_is_not_rgb_is_made_so(
    tmp_path: Path, suffix: str, make: Callable[[], Image.Image], expected: list[int]
) -> None:
    for name in ("a", "b"):
        save(tmp_path / f"{name}.{suffix}", make())
    found = images_of(load(tmp_path))[0].float()
    assert (found - torch.tensor(expected).view(3, 1, 1)).abs().max() <= (2 if suffix == "jpg" else 0)


def test_the_cameras_orientation_is_applied(tmp_path: Path) -> None:
    image = pixels(0)
    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown turned by a quarter, clockwise
    for name in ("a.png", "b.png"):
        save(tmp_path / name, image, exif=turned)
    for images in loaders(tmp_path):
        assert torch.equal(images_of(images)[0], as_tensor(np.rot90(image, -1)))


# ------------------------------------------------------------------- unreadable images


def with_broken_ones(folder: Path) -> Path:
    """Four good images and five broken ones; the last two only turn out so when they are decoded."""
    make_classes(folder, ant=2, bee=2)
    (folder / "ant" / "00a.jpg").write_bytes(b"")
    (folder / "ant" / "00b.jpg").write_text("not an image")
    (folder / "bee" / "01a.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 6\n")
    save(folder / "bee" / "00c.jpg", pixels(9, 64)[:, :, 0])
    whole = (folder / "bee" / "00c.jpg").read_bytes()
    (folder / "bee" / "00c.jpg").write_bytes(whole[: len(whole) // 2])
    save(folder / "ant" / "00d.png", pixels(9, 64))
    whole = (folder / "ant" / "00d.png").read_bytes()
    (folder / "ant" / "00d.png").write_bytes(whole[: len(whole) // 2])
    return folder


def test_unreadable_images_are_named_once_skipped_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = load(with_broken_ones(tmp_path), size=6, storage="memory")
    said = capsys.readouterr().err
    for name in ("00a.jpg", "00b.jpg", "01a.jpg", "00c.jpg", "00d.png"):
        assert sum(name in line for line in said.splitlines()) == 1
    assert "skipped 5 of 9 images" in said
    assert len(images.skipped) == 5
    assert images.required_labels().tolist() == [0, 0, 1, 1]
    assert torch.equal(images_of(images), torch.stack([as_tensor(pixels(number)) for number in range(4)]))


def test_a_stream_names_an_image_when_it_turns_out_unreadable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = load(with_broken_ones(tmp_path), size=6, storage="stream", workers=0)
    assert "skipped 3 of 9 images" in capsys.readouterr().err
    # They lie as: ant 00, 00d (broken), 01; bee 00, 00c (broken), 01.
    for _ in range(2):
        (batch,) = images.batches(6, shuffle=False, drop_last=False)
        assert batch.indices.tolist() == [0, 2, 3, 5], "left out"
        assert torch.equal(batch.images, torch.stack([as_tensor(pixels(number)) for number in range(4)]))
        assert batch.labels is not None
        assert batch.labels.tolist() == [0, 0, 1, 1]
        (batch,) = images.batches(6, shuffle=False)
        assert batch.indices.tolist() == [0, 2, 2, 3, 5, 5], "the next one takes the place"
        assert torch.equal(batch.images[1], batch.images[2])
    said = capsys.readouterr().err
    assert said.count("00c.jpg") == said.count("00d.png") == len(said.splitlines()) - 1 == 1
    assert len(images.skipped) == 5


def test_floating_point_pixels_are_unreadable_and_not_black(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_classes(tmp_path, ant=2)
    save(tmp_path / "ant" / "x.tif", Image.fromarray(np.full((6, 6), 0.5, np.float32)))
    assert len(load(tmp_path)) == 2
    assert "x.tif, which cannot be read: its pixels are floating-point numbers" in capsys.readouterr().err


def test_the_last_images_substitute_is_the_first_one(tmp_path: Path) -> None:
    make_classes(tmp_path, ant=3)
    images = load(tmp_path, storage="stream", workers=0)
    (tmp_path / "ant" / "02.png").unlink()
    (batch,) = images.batches(3, shuffle=False)
    assert batch.indices.tolist() == [0, 1, 0]


def test_a_disk_that_is_gone_ends_the_epoch(tmp_path: Path) -> None:
    make_classes(tmp_path, ant=4)
    images = load(tmp_path, storage="stream", workers=0)
    for path in (tmp_path / "ant").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"4 images of .* in a row cannot be read: is the disk still there\?"):
        next(images.batches(2))


# ------------------------------------------------------------------- batches and their order


@pytest.fixture
def eleven(tmp_path: Path) -> list[ImageSet]:
    return loaders(make_classes(tmp_path, ant=5, bee=6))


def indices(images: ImageSet, batch_size: int, **arguments: object) -> list[list[int]]:
    return [batch.indices.tolist() for batch in images.batches(batch_size, **arguments)]  # type: ignore[arg-type]


def test_a_stream_gives_what_memory_gives(eleven: list[ImageSet]) -> None:
    resident, streamed = ([*images.batches(4, seed=3, epoch=2)] for images in eleven)
    assert len(resident) == len(streamed) == 2
    for one, other in zip(resident, streamed, strict=True):
        assert not one.later, "only recorded frames have a later moment"
        assert not other.later
        for a, b in zip(one[:3], other[:3], strict=True):
            assert a is not None
            assert b is not None
            assert torch.equal(a, b)
        assert torch.equal(one.images, torch.stack([as_tensor(pixels(int(number))) for number in one.indices]))
        assert one.labels is not None
        assert one.labels.tolist() == [int(number >= 5) for number in one.indices]


def test_worker_processes_give_what_memory_gives(tmp_path: Path) -> None:
    make_classes(tmp_path, ant=5, bee=6)
    resident, streamed = load(tmp_path, storage="memory"), load(tmp_path, storage="stream", workers=2)
    for one, other in zip(resident.batches(3, seed=1), streamed.batches(3, seed=1), strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.indices, other.indices)


def test_an_epoch_resumes_at_any_batch(eleven: list[ImageSet]) -> None:
    for images in eleven:
        whole = indices(images, 3, seed=5, epoch=1)
        for start in range(4):
            assert indices(images, 3, seed=5, epoch=1, start_batch=start) == whole[start:]


def test_the_order_depends_on_seed_and_epoch_alone(eleven: list[ImageSet]) -> None:
    for images in eleven:
        first = indices(images, 11, seed=1, epoch=1)
        torch.manual_seed(0)
        np.random.seed(0)
        assert indices(images, 11, seed=1, epoch=1) == first
        assert indices(images, 11, seed=1, epoch=2) != first
        assert indices(images, 11, seed=2, epoch=1) != first
        assert indices(images, 11, seed=0, epoch=2) != first
        assert indices(images, 11, seed=1, epoch=1, shuffle=False) == [list(range(11))]


def test_no_global_random_number_is_drawn(eleven: list[ImageSet]) -> None:
    for images in eleven:
        before = torch.get_rng_state()
        indices(images, 3)
        assert torch.equal(torch.get_rng_state(), before)


def test_what_is_left_over_is_dropped_or_a_shorter_batch(eleven: list[ImageSet]) -> None:
    for images in eleven:
        dropped, kept = indices(images, 4), indices(images, 4, drop_last=False)
        assert [len(batch) for batch in dropped] == [4, 4]
        assert [len(batch) for batch in kept] == [4, 4, 3]
        assert kept[:2] == dropped
        assert sorted(chain.from_iterable(kept)) == list(range(11))
        assert images.batches_per_epoch(4) == 2
        assert images.batches_per_epoch(4, drop_last=False) == 3
        assert indices(images, 50, shuffle=False, drop_last=False) == [list(range(11))]
        assert images.batches_per_epoch(11) == images.batches_per_epoch(11, drop_last=False) == 1


def test_the_processes_shares_make_up_the_batches(eleven: list[ImageSet]) -> None:
    for images in eleven:
        whole = indices(images, 5, drop_last=False)
        shares = [indices(images, 5, drop_last=False, rank=rank, world_size=3) for rank in range(3)]
        assert [[len(batch) for batch in share] for share in shares] == [[2, 2, 1], [2, 2, 0], [1, 1, 0]]
        assert [[*chain.from_iterable(parts)] for parts in zip(*shares, strict=True)] == whole


def test_every_place_of_the_order_is_as_likely_for_an_image() -> None:
    orders = torch.stack([epoch_order(4, seed=0, epoch=epoch) for epoch in range(2000)])
    assert (orders.sort(1).values == torch.arange(4)).all()
    counts = torch.stack([(orders == image).sum(0) for image in range(4)])
    assert (counts - 500).abs().max() < 5 * (2000 * 0.25 * 0.75) ** 0.5


@pytest.mark.parametrize(
    ("batch_size", "arguments", "message"),
    [
        (12, {}, r"batch_size 12 is larger than .*, which has 11 images"),
        (0, {}, "batch_size must be at least 1, got 0"),
        (4, {"start_batch": 3}, "start_batch must be between 0 and the epoch's 2 batches, got 3"),
        (4, {"start_batch": -1}, "start_batch must be between 0"),
        (4, {"rank": 2, "world_size": 2}, "rank must be at least 0 and below world_size, got 2 of 2"),
    ],
)
def test_impossible_batches_are_refused_at_once(
    eleven: list[ImageSet], batch_size: int, arguments: dict[str, int], message: str
) -> None:
    for images in eleven:
        with pytest.raises(ValueError, match=message):
            images.batches(batch_size, **arguments)  # type: ignore[arg-type]


# ------------------------------------------------------------------- memory or stream


def test_a_set_streams_when_it_takes_more_than_a_quarter_of_free_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_classes(tmp_path, ant=10)
    needed = 10 * 3 * 6 * 6
    monkeypatch.setattr(image_sets, "available_memory", lambda: 4 * needed)
    assert isinstance(load(tmp_path), ResidentImages)
    monkeypatch.setattr(image_sets, "available_memory", lambda: 4 * needed - 1)
    assert isinstance(load(tmp_path), StreamedImages)
    assert isinstance(load(tmp_path, storage="memory"), ResidentImages)
    monkeypatch.setattr(image_sets, "available_memory", lambda: needed - 1)
    with pytest.raises(ValueError, match=r"storage memory: 10 images of 6×6 take .* take compute.storage stream"):
        load(tmp_path, storage="memory")


def test_images_in_memory_must_be_square_bytes() -> None:
    for wrong in (torch.zeros(2, 3, 4, 5, dtype=torch.uint8), torch.zeros(2, 3, 4, 4)):
        with pytest.raises(ValueError, match=r"images must be \(N, 3, S, S\) uint8, got"):
            ResidentImages("wrong", wrong)


# ------------------------------------------------------------------- bad input


def test_folders_that_cannot_be_learned_from_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no folder .*nowhere"):
        load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no images"):
        load(tmp_path)
    save(tmp_path / "a.png", pixels(0))
    with pytest.raises(ValueError, match=r"no folder .*a.png: it is a file"):
        load(tmp_path / "a.png")
    with pytest.raises(ValueError, match="has 1 images that can be read: learning takes two or more"):
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
    with pytest.raises(ValueError, match="two or more classes are needed, and .* has images of one only: ant"):
        images.required_labels()


def test_an_image_smaller_than_the_size_is_named(tmp_path: Path) -> None:
    for number, side in enumerate((9, 5, 8)):
        save(tmp_path / f"{number}.png", pixels(number, side, side + 2))
    with pytest.raises(
        ValueError, match=r"image_size 9 is larger than 2 images in .*1.png among them with 5 pixels: take 5 or less"
    ):
        load(tmp_path, size=9)
    with pytest.raises(
        ValueError, match=r"image_size is needed: the images in .* have shorter sides from 5 to 9 pixels"
    ):
        load(tmp_path)
    assert load(tmp_path, size=5).size == 5


@pytest.mark.parametrize("fields", [{"split": "validation"}, {"storage": "disk"}, {"size": 0}, {"workers": -1}])
def test_impossible_settings_are_refused(tmp_path: Path, fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        load(tmp_path, **fields)  # type: ignore[arg-type]


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
    with pytest.raises(ValueError, match=r'the digits need scikit-learn: pip install -e "\.\[vision\]"'):
        load("digits")


# ------------------------------------------------------------------- subsets


def test_test_images_of_a_class_that_was_never_seen_are_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_classes(tmp_path / "train", ant=2, bee=1)
    make_classes(tmp_path / "test", ant=1, Bee=2, wasp=1)
    sets = [load(tmp_path, split) for split in ("train", "test")]
    folders.say_what_cannot_be_learnt(*sets)
    line = "train has no image of Bee, wasp: 3 of 4 test images must count as wrong"
    assert capsys.readouterr().err.strip().endswith(line)
    folders.say_what_cannot_be_learnt(sets[0], sets[0])
    assert not capsys.readouterr().err


def test_a_balanced_subset_has_its_documented_size_in_each_class() -> None:
    labels = torch.arange(10).repeat(5000)
    for fraction, each in ((0.01, 50), (0.1, 500), (1.0, 5000)):
        chosen = balanced_subset(labels, fraction, seed=0)
        assert labels[chosen].bincount().tolist() == [each] * 10
        assert (chosen.diff() > 0).all(), "ascending, so none twice"


def test_every_class_gives_at_least_one_and_no_more_than_it_has() -> None:
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


def test_a_subset_is_fixed_by_its_seed_and_lies_in_the_larger_ones() -> None:
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


def test_everything_of_images_in_memory_is_what_lies_there_and_no_copy() -> None:
    digits = folders.load("digits") if importlib.util.find_spec("sklearn") else None
    if digits is None:
        pytest.skip("scikit-learn is not installed")
    batch = digits.everything()
    (same,) = digits.batches(len(digits), shuffle=False)
    assert torch.equal(batch.images, same.images)
    assert torch.equal(batch.indices, same.indices)
    assert batch.labels is digits.labels
    assert isinstance(digits, image_sets.ResidentImages)
    assert batch.images.data_ptr() == digits.images.data_ptr()
