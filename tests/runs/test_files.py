"""Atomic file writes, and files that others may have prepared."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from curl_rl.runs.command_line import command_parser, exit_code_of, refusals
from curl_rl.runs.console import say
from curl_rl.runs.errors import TrainingFault, UserError
from curl_rl.runs.files import (
    delete_file,
    has_other_names,
    open_own,
    open_regular,
    open_to_append,
    own_folder,
    read_file,
    write_durably,
    write_json,
)
from curl_rl.runs.lock import lock_run
from curl_rl.runs.logger import Logger


def test_parts_are_concatenated_and_replace_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old and longer than the new")
    write_durably(path, [b"new ", b"", b"content"])
    assert path.read_bytes() == b"new content"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_leaves_only_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(OSError, match="No space"):
        write_durably(path, [b"new"])
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_content_is_synced_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noting_fsync(descriptor: int) -> None:
        calls.append("sync a directory" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "sync a file")
        fsync(descriptor)

    def noting_replace(source: Path, target: Path) -> None:
        calls.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(os, "replace", noting_replace)
    write_durably(tmp_path / "file", [b"content"])
    assert calls == ["sync a file", "rename", "sync a directory"]


def test_json_follows_links_and_writes_directly_to_non_files(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text("old")
    (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    write_json(tmp_path / "link.json", {"a": [1, None]})
    assert (tmp_path / "link.json").is_symlink()
    assert json.loads((tmp_path / "real.json").read_text()) == {"a": [1, None]}
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_json(tmp_path / "pipe", 7)
    assert os.read(reader, 100) == b"7\n"
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


# ---- what others may have prepared


def test_a_write_follows_no_link_and_changes_no_other_name(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    for name in ("file", "file.partial"):
        for link in (os.symlink, os.link):
            link(outside, tmp_path / name)
            write_durably(tmp_path / "file", [b"new"])
            assert (tmp_path / "file").read_bytes() == b"new"
            assert not (tmp_path / "file").is_symlink()
            assert outside.read_bytes() == b"precious"
            assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "outside"]
            (tmp_path / "file").unlink()


@pytest.mark.parametrize("name", ["a", "a/b"])
def test_own_folders_are_not_links(tmp_path: Path, name: str) -> None:
    real, outside = tmp_path / "real", tmp_path / "outside"
    (tmp_path / "run").symlink_to(real)
    real.mkdir()
    outside.mkdir()
    assert own_folder(tmp_path / "run", "x/y") == tmp_path / "run" / "x" / "y"
    assert (real / "x" / "y").is_dir()
    (real / name).parent.mkdir(exist_ok=True)
    (real / name).symlink_to(outside)
    with pytest.raises(UserError, match=rf"{tmp_path / 'run' / name} is a link"):
        own_folder(tmp_path / "run", "a/b/c")
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_WRONLY | os.O_APPEND])
def test_a_file_written_in_place_is_a_regular_file_and_no_link(tmp_path: Path, flags: int) -> None:
    with open_own(tmp_path / "new", flags) as file:
        file.write(b"new")
        assert not has_other_names(file)
        os.link(tmp_path / "new", tmp_path / "other")
        assert has_other_names(file)
    (tmp_path / "link").symlink_to(tmp_path / "absent")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    os.mkfifo(tmp_path / "pipe")
    for name, message in (("link", "is a link"), ("circle", "is a link"), ("pipe", "must be a regular file")):
        with pytest.raises(UserError, match=message):
            open_own(tmp_path / name, flags)
    assert not (tmp_path / "absent").exists()


def test_reading_is_bounded_and_waits_for_nobody(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"1234")
    assert read_file(path, 4) == b"1234"
    with pytest.raises(UserError, match="has more than 3 bytes"):
        read_file(path, 3)
    os.mkfifo(tmp_path / "pipe")
    for odd in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(UserError, match="must be a regular file"):
            open_regular(odd)


def test_deleting_spares_what_a_link_points_to_and_folders(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    for name in ("link", "folder", "absent"):
        delete_file(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_names_cannot_control_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    say("a\x1b[31mb")
    parser = command_parser("")
    with pytest.raises(SystemExit), refusals(parser):
        raise UserError("c\x1b[31md")

    def fails() -> None:
        raise TrainingFault("e\x1b[31mf")

    exit_code_of("program", fails)
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert all(text in said for text in ("a\\x1b[31mb", "c\\x1b[31md", "e\\x1b[31mf"))


def test_a_hard_link_of_the_log_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "precious").write_bytes(b"")
    os.link(tmp_path / "precious", tmp_path / "run" / "metrics.jsonl")
    with pytest.raises(UserError, match="has a hard link elsewhere"):
        Logger(tmp_path / "run")
    with pytest.raises(UserError, match="has a hard link elsewhere"):
        open_to_append(tmp_path / "run" / "metrics.jsonl")
    os.link(tmp_path / "precious", tmp_path / "run" / "run.lock")
    with lock_run(tmp_path / "run"):
        assert (tmp_path / "precious").read_bytes() == b""
