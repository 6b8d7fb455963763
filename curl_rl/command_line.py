"""What the commands in scripts/ have in common: how they explain themselves, and how they refuse."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from curl_rl.compute import is_out_of_memory
from curl_rl.errors import one_line

_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def command_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that shows ``description`` as it is written, and says what is wrong in one line, without the usage."""
    return argparse.ArgumentParser(
        usage=argparse.SUPPRESS,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


@contextlib.contextmanager
def refusals(parser: argparse.ArgumentParser, *more: type[Exception]) -> Iterator[None]:
    """Around a command's work: a mistake of the user's ends it with one line and exit code 2, Ctrl-C with 130.

    Mistakes are ValueError, OSError, ImportError (an extra is missing), FloatingPointError (settings that overflow),
    more than fits into memory, and ``more``.
    """
    mistakes: tuple[type[Exception], ...] = (ValueError, FloatingPointError, ImportError, *more)
    try:
        yield
    except mistakes as error:
        parser.error(one_line(error))
    except OSError as error:
        # A file that is missing or broken where one is read is a ValueError by then.
        parser.error(f"cannot write {error.filename}: {error.strerror}" if error.filename else one_line(error))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        parser.error(f"out of memory: {one_line(error)}")
    except KeyboardInterrupt:
        raise SystemExit(_INTERRUPTED) from None


def check_writable(path: Path) -> None:
    """Makes the folder of a file that is written at the end of long work; to be called before it.

    Raises:
        OSError: the folder cannot be made or written into, or ``path`` is a folder itself.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
