"""Scenes: exact boxes, the same scene for the same number, the classes that a task asks for; cut-outs and bad ones."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from curl_rl.runs.errors import UserError
from curl_rl.vision.detection.boxes import coverage
from curl_rl.vision.detection.cutouts import Cutouts, read_cutouts
from curl_rl.vision.detection.scenes import ScenesConfig, check_backgrounds, draw_scenes
from helpers.cutout_folders import SHAPES, make_cutouts

PLAIN = ScenesConfig(size=64, smallest=16, largest=28, background="plain")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cutouts(tmp_path_factory.mktemp("cutouts"))


@pytest.fixture(scope="module")
def cutouts(folder: Path) -> Cutouts:
    return read_cutouts(str(folder), SHAPES)["train"]


def test_pictures_are_cropped_to_what_is_visible_and_divided_into_parts(folder: Path) -> None:
    parts = read_cutouts(str(folder), ("disk", "bar"))
    assert parts["train"].classes == ("disk", "bar")
    assert [picture.size for picture in parts["train"].pictures[0]] == [(24, 24), (28, 28), (32, 32)]
    assert [[picture.size for picture in parts[part].pictures[0]] for part in ("validation", "test")] == [
        [(36, 36)],
        [(40, 40)],
    ]
    assert len({one.identity for one in parts.values()}) == 3


def test_boxes_are_those_of_the_visible_pixels() -> None:
    white = Image.new("RGBA", (20, 10), (255, 255, 255, 255))
    pictures = Cutouts("white", ("a", "b"), ((white,), (white,)), drawings=False)
    # One object in each scene, on a background that is never quite white.
    config = replace(PLAIN, most=1)
    scenes = draw_scenes(pictures, config, range(20), seed=3, purpose="training scenes")
    for image, boxes in zip(scenes.images, scenes.truth.boxes, strict=True):
        left, top, right, bottom = boxes[0].int().tolist()
        inside = torch.zeros(64, 64, dtype=torch.bool)
        inside[top:bottom, left:right] = True
        spread = image.float().std(0)  # gray only on the object: its three channels are equal
        assert spread[inside].max() == 0
        assert 16 <= right - left <= 28
        assert (right - left) == pytest.approx(2 * (bottom - top), abs=1)


def test_a_scene_depends_on_seed_purpose_and_number_alone(cutouts: Cutouts) -> None:
    def draw(numbers: list[int], seed: int = 1, test: bool = False) -> torch.Tensor:
        purpose = "test scenes" if test else "training scenes"
        return draw_scenes(cutouts, PLAIN, numbers, seed=seed, purpose=purpose).images  # type: ignore[arg-type]

    assert torch.equal(draw([7, 8, 9])[2], draw([9])[0])
    different = [draw([7])[0], draw([8])[0], draw([7], seed=2)[0], draw([7], test=True)[0]]
    assert all(not torch.equal(one, other) for i, one in enumerate(different) for other in different[:i])


def test_the_first_object_is_of_the_task_and_the_others_often(cutouts: Cutouts) -> None:
    scenes = draw_scenes(cutouts, PLAIN, range(300), seed=1, purpose="training scenes", taught=[1, 2])
    labels = scenes.truth.labels
    assert set(labels[:, 0].tolist()) == {1, 2}
    rest = labels[:, 1:][labels[:, 1:] >= 0]
    share = ((rest == 1) | (rest == 2)).float().mean().item()
    assert share == pytest.approx(PLAIN.taught, abs=0.1)  # some 350 objects: four standard deviations
    everything = draw_scenes(cutouts, PLAIN, range(300), seed=1, purpose="test scenes").truth.labels
    counts = torch.bincount(everything[everything >= 0], minlength=4).float()
    assert (counts / counts.sum() - 1 / 4).abs().max() < 0.07


def test_objects_hide_little_of_each_other(cutouts: Cutouts) -> None:
    boxes = draw_scenes(cutouts, PLAIN, range(50), seed=1, purpose="training scenes").truth.boxes
    shares = coverage(boxes, boxes) * (1 - torch.eye(PLAIN.most))
    assert shares.max() <= 0.35  # the boxes of visible pixels are somewhat smaller than those that were placed


def test_photographs_need_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    from curl_rl.vision.detection import scenes

    scenes._photographs.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UserError, match=r"^scenes.background photographs needs scikit-learn: .*, or take plain$"):
        check_backgrounds(ScenesConfig())
    check_backgrounds(PLAIN)


def test_digits_are_strokes_with_a_random_color() -> None:
    pytest.importorskip("sklearn")
    parts = read_cutouts("digits", ("3", "8"))
    digits = parts["test"]
    assert digits.drawings
    assert [len(pictures) for pictures in digits.pictures] == [36, 34]  # every fifth of 183 and 174
    assert [[len(pictures) for pictures in parts[part].pictures] for part in ("train", "validation")] == [
        [118, 112],
        [29, 28],  # every fifth of the other 147 and 140
    ]
    pixels = np.asarray(digits.pictures[1][0])
    assert (pixels[..., :3] == 255).all()
    assert pixels[..., 3].min() < 128 < pixels[..., 3].max()


@pytest.mark.parametrize(
    ("source", "classes", "message"),
    [
        ("nowhere", ("bar",), "data must be a folder of cut-outs or digits, got nowhere: no such folder"),
        ("{folder}", ("bat",), "{folder} has no class bat: it has bar, cross, disk, frame; did you mean bar?"),
        ("digits", ("3", "x"), "digits has no class x: it has 0, 1, 2"),
    ],
)
def test_wrong_sources_are_refused_in_one_line(
    source: str, classes: tuple[str, ...], message: str, folder: Path
) -> None:
    with pytest.raises(UserError) as refused:
        read_cutouts(source.format(folder=folder), classes)
    assert str(refused.value).startswith(message.format(folder=folder))
    assert "\n" not in str(refused.value)


def test_pictures_that_are_no_cutouts_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_cutouts(tmp_path, 5, ("disk",))
    Image.new("RGB", (30, 30), "red").save(tmp_path / "disk" / "opaque.png")
    Image.new("RGBA", (30, 30)).save(tmp_path / "disk" / "z_empty.png")
    (tmp_path / "disk" / "broken.png").write_bytes(b"no picture")
    make_cutouts(tmp_path, 2, ("bar",))
    found = read_cutouts(str(tmp_path), ("disk",))["train"]
    assert len(found.pictures[0]) == 3
    assert "3 pictures are left out, such as" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"bar has 2 pictures [^\n]*leave the class out$"):  # disk's are no reason
        read_cutouts(str(tmp_path), ("disk", "bar"))
    (tmp_path / "disk" / "0.png").unlink()
    with pytest.raises(
        UserError, match=r"disk has 4 pictures with a transparent background, and a class needs at least 5"
    ):
        read_cutouts(str(tmp_path), ("disk",))


def test_a_folders_accents_may_be_spelled_either_way(tmp_path: Path) -> None:
    letters = "n\u00e9e", "ne\u0301e"  # é as one character, and as e with an accent
    for folder, named in (letters, letters[::-1]):
        make_cutouts(tmp_path / str(len(named)), 5, ("disk",))
        (tmp_path / str(len(named)) / "disk").rename(tmp_path / str(len(named)) / folder)
        assert len(read_cutouts(str(tmp_path / str(len(named))), (named,))["train"].pictures[0]) == 3


def test_pictures_are_upright(tmp_path: Path) -> None:
    folder = make_cutouts(tmp_path, 5, ("bar",))
    for path in folder.glob("bar/*.png"):
        picture = Image.open(path)
        turned = picture.getexif()
        turned[0x0112] = 6  # shown a quarter turn to the right
        picture.save(path, exif=turned)
    sizes = [picture.size for picture in read_cutouts(str(folder), ("bar",))["train"].pictures[0]]
    assert sizes == [(9, 24), (10, 28), (11, 32)]  # bars of 24 by 9 pixels and so on


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"smallest": 30, "largest": 20}, "scenes.smallest, largest and size must not decrease, got 30, 20, 64"),
        ({"size": 8}, "scenes.size must be from 32 to 1024, got 8"),
        ({"most": 0}, "scenes.most must be at least 1, got 0"),
    ],
)
def test_impossible_scenes_are_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(PLAIN, **changes)  # type: ignore[arg-type]
