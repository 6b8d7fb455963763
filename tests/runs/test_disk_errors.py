"""Remedies for errors of the file system, by their meaning in errno(3)."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from curl_rl.runs.disk_errors import cannot_write, in_words, remedy
from curl_rl.runs.errors import UserError


def failed(name: str) -> OSError:
    number = getattr(errno, name)
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("ENOSPC", "space"),
        ("EDQUOT", "quota"),
        ("EACCES", "permissions"),
        ("EPERM", "owner"),
        ("EROFS", "mount"),
        ("ENAMETOOLONG", "shorter names"),
        ("EIO", "check the disk"),
        ("EMFILE", "open files"),
        ("EFBIG", "size of a file"),
    ],
)
def test_each_error_has_its_own_remedy(name: str, word: str) -> None:
    assert word in remedy(failed(name))
    assert ("space" in remedy(failed(name))) == (name in ("ENOSPC", "EDQUOT")), "more room helps a full disk alone"
    assert in_words(failed(name)) == f"{failed(name).strerror}: {remedy(failed(name))}"


def test_errors_without_a_remedy_keep_their_words() -> None:
    assert remedy(UserError("9 images in a row cannot be read")) == remedy(failed("EEXIST")) == "fix this"
    assert cannot_write(Path("a"), failed("EEXIST")) == "cannot write to a: File exists"
    assert in_words(OSError("gone")) == "gone"
