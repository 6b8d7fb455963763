"""Damage to saved files: bytes flipped, files cut, grown, or replaced by something else that bears their name."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from helpers.faults.attempts import OLDER, REFUSED, SAME, TOLD, Kind, Ran, Result, copied, fail, in_child, ran, refusal
from helpers.faults.subjects import POLICY, SUBJECTS, Subject, expected

Harm = Callable[[random.Random, Path], str]
"""Harms a file, and says how."""


def files_of(subject: Subject, folder: Path) -> list[Path]:
    """The subject's files, in the order of their names; TensorBoard's have unique ones."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in subject.ignored]
    return sorted(files, key=lambda path: str(path.relative_to(folder)))


# ---- content


def flip(source: random.Random, path: Path) -> str:
    """One byte, at a random place."""
    content = bytearray(path.read_bytes())
    if not content:
        return "is empty"
    place = source.randrange(len(content))
    before, content[place] = content[place], content[place] ^ source.randrange(1, 256)
    path.write_bytes(content)
    return f"byte {place} of {len(content)} is {content[place]:#x} instead of {before:#x}"


def cut(source: random.Random, path: Path) -> str:
    """To a random length, often 0 or one byte less."""
    whole = path.stat().st_size
    length = source.choice([0, max(0, whole - 1), source.randrange(whole + 1)])
    os.truncate(path, length)
    return f"cut to {length} of {whole} bytes"


def grow(source: random.Random, path: Path) -> str:
    """By random bytes, zeros, its own content, or a hole of 8 GB."""
    how = source.choice(["random bytes", "zeros", "itself", "a hole"])
    with open(path, "ab") as file:
        if how == "a hole":
            file.truncate(8 * 2**30)
        else:
            file.write({"random bytes": source.randbytes(9), "zeros": bytes(9), "itself": path.read_bytes()}[how])
    return f"grown by {how}"


# ---- the file itself


def replace_file(source: random.Random, path: Path) -> str:
    """By a folder, a pipe, a device, a dangling or endless link, a link to a copy elsewhere, or nothing; sometimes the
    whole folder in which it is."""
    how = source.choice(["folder", "pipe", "device", "dangling", "loop", "moved", "hard", "gone", "unreadable"])
    if source.random() < 0.1 and path.parent.name in ("checkpoints", "segments"):
        path = path.parent
        how = source.choice(["pipe", "device", "dangling", "loop", "moved", "gone"])
    moved = Path(f"{path}.moved")
    if how in ("moved", "hard"):
        (shutil.copytree if path.is_dir() else shutil.copy)(path, moved)
    if how == "unreadable":
        path.chmod(0)  # root reads it nevertheless
        return how
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "pipe":
        os.mkfifo(path)
    elif how == "device":
        path.symlink_to("/dev/zero")
    elif how == "dangling":
        path.symlink_to("nowhere")
    elif how == "loop":
        path.symlink_to(path.name)
    elif how == "moved":
        path.symlink_to(moved.name)
    elif how == "hard":
        os.link(moved, path)
    return how if path.suffix else f"folder of it {how}"


def swap(source: random.Random, path: Path) -> str:
    """By another file beside it, as a clumsy copy does."""
    others = sorted(other for other in path.parent.iterdir() if other.is_file() and other != path)
    if not others:
        return "nothing beside it"
    other = source.choice(others)
    shutil.copy(other, path)
    return f"replaced by {other.name}"


BOMB = b"cos\nsystem\n(S'touch \"$FAULT_MARK\"'\ntR."


def plant(source: random.Random, path: Path) -> str:
    """Something that runs code or swells if it is trusted: a pickle, tags of YAML, deep JSON, aliases."""
    laughs = b"a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + b"".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n".encode() for n in range(1, 12)
    )
    planted = {
        "a pickle": BOMB,
        "a tag of YAML": b'!!python/object/apply:os.system [touch "$FAULT_MARK"]\n',
        "deep JSON": b"[" * 200_000,
        "deep YAML": b"a: " + b"[" * 5_000,
        "a billion laughs": laughs,
        "a huge header": (2**62).to_bytes(8, "little") + b"{}",
        "a number": b"1e999\n",
        "null": b"null",
        "a list": b"[1, 2, 3]\n",
    }
    how = source.choice(sorted(planted))
    path.write_bytes(planted[how])
    return how


HARMS: dict[str, Harm] = {
    "flipped": flip,
    "cut": cut,
    "grown": grow,
    "replaced": replace_file,
    "swapped": swap,
    "planted": plant,
}


# ---- what comes of it


def attempt(subject: Subject, harm: Harm, source: random.Random, folder: Path) -> Result:
    """Harms one file of a copy, and hands it to one of the subject's readers."""
    reader = source.choice(sorted(subject.readers))
    wanted = expected(subject, reader)
    copy = copied(subject.original(), folder / subject.original().name)
    opened, files = [copy / name for name in wanted.opened], files_of(subject, copy)
    path = source.choice(opened if source.random() < 0.8 else files)
    mark, out = folder / "mark", folder / "out"
    out.mkdir()
    how = harm(source, path)

    def read() -> str:
        os.environ["FAULT_MARK"] = str(mark)
        ended = ran(lambda: subject.readers[reader](copy, out))
        if mark.exists():
            fail("ran the code in it")
        without_newest = path.suffix == ".ckpt" and how == "gone"  # leaves nothing that could be said
        return OLDER if without_newest and not ended.code else _outcome(wanted.fingerprint, ended, out)

    outcome, detail = in_child(read)
    return Result(outcome, detail and f"{path.relative_to(copy)} {how}, read by {reader}: {detail}")


def _outcome(wanted: str, ended: Ran, out: Path) -> str:
    if refusal(ended) is not None:
        return REFUSED
    same = (out / "fingerprint").read_text() == wanted
    if "RuntimeWarning" in ended.err:
        return OLDER
    if same:
        return SAME
    if any(word in ended.err for word in ("has lost", "has been changed", "has been edited", "did not repeat itself")):
        return TOLD
    fail(f"a silent difference; it printed {ended.err[-600:]!r}")


def kinds() -> list[Kind]:
    """Each harm to each subject."""
    return [
        Kind(f"{subject.name}: a file {name}", lambda source, folder, s=subject, h=harm: attempt(s, h, source, folder))
        for subject in SUBJECTS
        for name, harm in HARMS.items()
        if not (subject is POLICY and harm is swap)  # nothing lies beside it
    ]
