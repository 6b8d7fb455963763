"""Which files below a folder are images: compared with the names that were put there."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from PIL import Image

from curl_rl.vision.data import listing, load
from curl_rl.vision.data.listing import LeftOut, images_below
from helpers.image_folders import make_classes, pixels, save


def below(folder: Path, left_out: LeftOut | None = None) -> list[str]:
    return [os.path.relpath(path, folder) for path in images_below(str(folder), left_out)]


def touch(folder: Path, *paths: str) -> Path:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    return folder


def test_files_come_before_folders_in_the_order_of_their_names(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.png", "b/1.png", "a/z.png", "c.png", "B.png", "a/a/1.png")
    assert below(tmp_path) == ["B.png", "c.png", "a/z.png", "a/a/1.png", "b/1.png", "b/2.png"]


def test_what_systems_leave_behind_is_ignored(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "a/._1.png", ".git/x.png", ".ipynb_checkpoints/1.png", "__MACOSX/a/1.png", "Thumbs.db")
    touch(tmp_path, "a/@eaDir/1.jpg/SYNO_M.jpg", "$RECYCLE.BIN/1.png", "lost+found/1.png")
    left_out = LeftOut()
    assert below(tmp_path, left_out) == ["a/1.png"]
    assert not left_out.suffixes


def test_other_files_are_counted_by_suffix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_classes(tmp_path, cat=2)
    touch(tmp_path, "cat/1.heic", "cat/2.HEIC", "cat/notes.txt", "README", "dog/1.heic", "dog/a.b c")
    images = load(tmp_path)
    said = capsys.readouterr().err
    assert "passed over files that are not read as images: 3 .heic, 2 without a suffix, 1 .txt\n" in said
    assert "1 class (cat), no images in dog" in images.layout


def test_a_folder_of_other_files_alone_is_refused_after_they_were_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    touch(tmp_path, "a/1.heic", "b/2.heic")
    with pytest.raises(ValueError, match="holds no images"):
        load(tmp_path)
    assert "passed over files that are not read as images: 2 .heic" in capsys.readouterr().err


# ------------------------------------------------------------------------ runs


@pytest.mark.parametrize("mark", ["run.lock", "metrics.jsonl"])
def test_pictures_in_run_directories_are_left_out(
    tmp_path: Path, mark: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make_classes(tmp_path, cat=2, dog=2)
    for run in ("runs/first/seed1", "runs/first/seed1.before-1", "dog/again"):
        touch(tmp_path, f"{run}/config.yaml", f"{run}/{mark}")
        save(tmp_path / run / "projector" / "images.png", pixels(9))
    images = load(tmp_path)
    assert images.classes == ("cat", "dog")
    assert images.required_labels().tolist() == [0, 0, 1, 1]
    runs = ", ".join(str(tmp_path / run) for run in ("runs/first/seed1", "runs/first/seed1.before-1", "dog/again"))
    assert f"left out run directories, whose pictures are no data: {runs}\n" in capsys.readouterr().err


def test_a_folder_with_a_configuration_of_its_own_is_no_run(tmp_path: Path) -> None:
    touch(tmp_path, "config.yaml", "1.png")
    assert below(tmp_path) == ["1.png"]


# ----------------------------------------------------------------------- links


def test_links_in_a_circle_are_followed_once(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "a" / "to_b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "to_a").symlink_to(tmp_path / "a")
    (tmp_path / "b" / "up").symlink_to("..")
    (tmp_path / "b" / "root").symlink_to("/")
    (tmp_path / "itself").symlink_to("itself")
    assert below(tmp_path) == ["a/1.png", "a/to_b/2.png", "b/2.png", "b/to_a/1.png"]


def test_links_that_lead_nowhere_pipes_and_empty_files_are_unreadable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_classes(tmp_path, cat=2)
    (tmp_path / "cat" / "broken.png").symlink_to("nowhere.png")
    (tmp_path / "cat" / "itself.png").symlink_to("itself.png")
    os.mkfifo(tmp_path / "cat" / "pipe.png")
    (tmp_path / "cat" / "to_pipe.png").symlink_to("pipe.png")
    (tmp_path / "cat" / "empty.png").touch()
    assert len(load(tmp_path)) == 2
    said = capsys.readouterr().err
    for name, reason in (
        ("broken", "No such file or directory"),
        ("itself", "Too many levels of symbolic links"),
        ("pipe", "it is not a regular file"),
        ("to_pipe", "it is not a regular file"),
        ("empty", "it is empty"),
    ):
        assert f"/{name}.png, which cannot be read: {reason}\n" in said
    assert "skipped 5 of 7 images" in said


def test_a_socket_is_not_opened(tmp_path: Path) -> None:
    make_classes(tmp_path, cat=2)
    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(tmp_path, os.O_RDONLY)
        try:
            server.bind(f"/proc/self/fd/{here}/cat/s.png")  # a short path, as sockets need
        finally:
            os.close(here)
        assert len(load(tmp_path)) == 2


# ------------------------------------------------------------------ unreadable


@pytest.mark.parametrize("locked", ["", "train", "train/cat", "train/cat/deeper"])
def test_an_unreadable_folder_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locked: str
) -> None:
    make_classes(tmp_path / "train", cat=2)
    save(tmp_path / "train" / "cat" / "deeper" / "3.png", pixels(3))
    scandir = os.scandir

    def refuse(path: str) -> object:
        if Path(path) == tmp_path / locked:  # root, who may run the tests, could read any folder
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(listing.os, "scandir", refuse)
    with pytest.raises(ValueError, match=rf"cannot read {tmp_path / locked}: Permission denied"):
        load(tmp_path)


def test_a_folder_behind_an_unreadable_one_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = os.stat

    def refuse(path: object, **options: object) -> os.stat_result:
        if str(path).startswith(str(tmp_path / "locked")):
            raise PermissionError(13, "Permission denied", path)
        return stat(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(ValueError, match=rf"cannot read {tmp_path / 'locked' / 'data'}: Permission denied"):
        load(tmp_path / "locked" / "data")


def test_a_decompression_bomb_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_classes(tmp_path, cat=2)
    save(tmp_path / "cat" / "bomb.png", Image.new("1", (3000, 3000)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
    assert len(load(tmp_path, size=6)) == 2
    assert "bomb.png, which cannot be read: Image size (9000000 pixels) exceeds limit" in capsys.readouterr().err
