"""Shared behavior of the commands in scripts/: parsers, one-line errors and exit codes."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from curl_rl.runs.disk_errors import in_words
from curl_rl.runs.errors import TrainingFault, UserError, one_line
from curl_rl.runs.faults import is_out_of_memory
from curl_rl.runs.signals import Stopped
from curl_rl.runs.spelling import in_this_spelling
from curl_rl.runs.whole_numbers import whole_number

_INTERRUPTED = 130  # 128 + SIGINT, the shell convention


def command_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that shows ``description`` unformatted and reports errors in one line, without the usage.

    Arguments of type ``int`` take every spelling of a whole number, ``1e5`` too, and those of type ``Path`` expand a
    leading ``~``, which a shell leaves alone in ``--out=~/x``.
    """
    parser = argparse.ArgumentParser(
        usage=argparse.SUPPRESS,
        description=description,
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
    )
    parser.register("type", int, whole_number)
    parser.register("type", Path, lambda text: Path(os.path.expanduser(text)))
    return parser


@contextlib.contextmanager
def refusals(parser: argparse.ArgumentParser, *more: type[Exception]) -> Iterator[None]:
    """Ends a command with one line and exit code 2 on a user error, with 130 on Ctrl-C.

    User errors are ValueError, OSError, ImportError (a missing extra), FloatingPointError (settings that overflow),
    running out of memory, and ``more``.
    """
    mistakes: tuple[type[Exception], ...] = (ValueError, FloatingPointError, ImportError, *more)
    try:
        yield
    except mistakes as error:
        parser.error(in_this_spelling(one_line(error)))
    except OSError as error:
        # Readers report a missing or broken file as a ValueError, so this OSError comes from writing.
        parser.error(f"cannot write {error.filename}: {in_words(error)}" if error.filename else in_words(error))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        parser.error(f"out of memory: {one_line(error)}")
    except KeyboardInterrupt:
        raise SystemExit(_INTERRUPTED) from None


def exit_code_of(program: str, work: Callable[[], object], *, tells_mistakes: bool = True) -> int:
    """Runs a command's long ``work`` and returns its exit code; prints one line if it failed.

    0: done. 1: a fault in mid-run. 2: a user error, printed only if ``tells_mistakes``. 128 + n: stopped by signal n.
    """
    try:
        work()
    except UserError as error:
        if tells_mistakes:
            print(f"{program}: error: {in_this_spelling(one_line(error))}", file=sys.stderr)
        return 2
    except TrainingFault as error:
        print(f"{program}: {one_line(error)}", file=sys.stderr)
        return 1
    except Stopped as stopped:
        return stopped.exit_code
    except KeyboardInterrupt:
        return _INTERRUPTED
    return 0


def check_writable(path: Path) -> None:
    """Creates the folder of an output file; call it before the long work whose result the file will hold.

    Raises:
        OSError: the folder cannot be created or written to, or ``path`` is itself a folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    real = path.resolve()  # follows links
    if real.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    # A regular file is replaced by a complete new one; anything else (/dev/stdout) is written to directly.
    written_to = real if real.exists() and not real.is_file() else real.parent
    if not os.access(written_to, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of the description, whose lines are commands."""

    def format_help(self) -> str:
        return in_this_spelling(super().format_help())
