"""Every change that this process makes to the files of a folder: counted, and at one of them a kill or an error.

The operations are found by watching, not listed: writes as they reach the operating system, syncs, renames, deletions,
new files and folders. Installed in a forked child and never removed.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from curl_rl.runs import files

Mode = Literal[
    "count", "before", "torn", "after", "power cut", "full disk", "once full", "no permission", "input/output"
]
ERRORS: dict[str, int] = {
    "full disk": errno.ENOSPC,
    "once full": errno.ENOSPC,
    "no permission": errno.EACCES,
    "input/output": errno.EIO,
}
_NEED_ROOM = ("write", "create", "mkdir", "rename", "fsync", "truncate")


class Operations:
    """The operations on files below a folder.

    Args:
        folder: its files are watched.
        mode: what happens. before, torn, after: SIGKILL before, in the middle of (half of a write is done) or after the
            operation. power cut: before it, and what was not synced is lost. Otherwise an OSError, of all operations
            from this one on, or only of this one (once full, input/output).
        at: the number of the operation, from 0.
    """

    def __init__(self, folder: Path, mode: Mode = "count", at: int = -1) -> None:
        self.folder, self.mode, self.at = os.path.realpath(folder), mode, at
        self.log: list[str] = []
        self._synced: dict[int, int] = {}  # by inode: the length that a power cut leaves

    def concerns(self, path: Any) -> bool:
        """Whether a path is one of the folder's."""
        return isinstance(path, (str, os.PathLike)) and os.path.abspath(os.fspath(path)).startswith(self.folder)

    def do(self, name: str, path: Any, act: Callable[[], Any], half: Callable[[], Any] = lambda: None) -> Any:
        """Counts an operation, and does it, or what is to happen instead."""
        number = len(self.log)
        self.log.append(f"{name} {os.path.relpath(os.fspath(path), self.folder)}")
        if number == self.at and self.mode in ("before", "torn", "power cut"):
            if self.mode == "torn":
                half()
            self._die()
        if self._fails(number, name):
            half()
            code = ERRORS[self.mode]
            raise OSError(code, os.strerror(code), os.fspath(path))
        result = act()
        if number == self.at and self.mode == "after":
            self._die()
        return result

    def _fails(self, number: int, name: str) -> bool:
        if self.mode in ("full disk", "no permission"):
            return 0 <= self.at <= number and (name in _NEED_ROOM if self.mode == "full disk" else name != "write")
        return self.mode in ERRORS and number == self.at and name in _NEED_ROOM

    def _die(self) -> None:
        if self.mode == "power cut":
            for path in Path(self.folder).rglob("*"):
                if (
                    path.is_file()
                    and not path.is_symlink()
                    and (length := self._synced.get(path.stat().st_ino)) is not None
                ):
                    _TRUNCATE(path, min(length, path.stat().st_size))
        os.kill(os.getpid(), signal.SIGKILL)

    def written(self, descriptor: int, before: int) -> None:
        """Notes that a file has content that is not synced, beyond this length."""
        self._synced.setdefault(os.fstat(descriptor).st_ino, before)

    def synced(self, descriptor: int) -> None:
        """Notes that it is."""
        self._synced.pop(os.fstat(descriptor).st_ino, None)

    def install(self) -> Operations:
        """Watches this process from now on."""
        operations = self

        class File(io.FileIO):
            """A file whose writes are watched."""

            def __init__(self, file: Any, mode: str = "r", *rest: Any, **named: Any) -> None:
                self.path = os.readlink(f"/proc/self/fd/{file}") if isinstance(file, int) else os.fspath(file)
                self.watched = operations.concerns(self.path)
                opens = lambda: io.FileIO.__init__(self, file, mode, *rest, **named)  # noqa: E731
                if self.watched and not isinstance(file, int) and not os.path.lexists(self.path):
                    operations.do("create", self.path, opens)
                    operations.written(self.fileno(), 0)
                else:
                    opens()

            def write(self, data: Any) -> int:
                if not self.watched:
                    return super().write(data)
                whole = memoryview(data).cast("B")
                operations.written(self.fileno(), os.fstat(self.fileno()).st_size)
                half = whole[: len(whole) // 2]
                write = super().write
                return operations.do("write", self.path, lambda: write(whole), lambda: write(half))  # type: ignore[no-any-return]

            def truncate(self, size: int | None = None) -> int:
                cut = super().truncate
                if not self.watched:
                    return cut(size)
                return operations.do("truncate", self.path, lambda: cut(size))  # type: ignore[no-any-return]

        def opened(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **named: Any) -> Any:
            if not operations.concerns(file) or not set(mode) & set("wxa+") or "opener" in named:
                return _OPEN(file, mode, buffering, *rest, **named)
            raw = File(file, mode.replace("t", ""))
            buffered: Any = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return buffered if "b" in mode else io.TextIOWrapper(buffered, named.get("encoding") or "utf-8")

        builtins.open = io.open = opened  # type: ignore[assignment]
        files.FileIO = File  # type: ignore[misc]
        for name in ("unlink", "remove", "mkdir", "rmdir"):
            setattr(os, name, self._watched(name, getattr(os, name)))
        for name in ("replace", "rename"):
            setattr(os, name, self._watched("rename", getattr(os, name), path=1))
        os.fsync = self._fsync  # type: ignore[assignment]
        real_open = os.open

        def os_open(path: Any, flags: int, *rest: Any, **named: Any) -> int:
            creates = flags & os.O_CREAT and operations.concerns(path) and not os.path.lexists(path)
            if not creates:
                return real_open(path, flags, *rest, **named)
            return operations.do("create", path, lambda: real_open(path, flags, *rest, **named))  # type: ignore[no-any-return]

        os.open = os_open  # type: ignore[assignment]
        return self

    def _watched(self, name: str, call: Callable[..., Any], path: int = 0) -> Callable[..., Any]:
        def watched(*arguments: Any, **named: Any) -> Any:
            if not self.concerns(arguments[path]) or named.get("dir_fd") is not None:
                return call(*arguments, **named)
            return self.do(name, arguments[path], lambda: call(*arguments, **named))

        return watched

    def _fsync(self, descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if not self.concerns(path):
            return _FSYNC(descriptor)
        self.do("fsync", path, lambda: _FSYNC(descriptor))
        self.synced(descriptor)
        return None


_OPEN, _FSYNC, _TRUNCATE = builtins.open, os.fsync, os.truncate
