"""What the commands in scripts/ have in common: how they explain themselves, and how they refuse."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from curl_rl.runs.errors import TrainingFault, UserError, one_line
from curl_rl.runs.faults import is_out_of_memory
from curl_rl.runs.signals import Stopped

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


def exit_code_of(program: str, work: Callable[[], object], *, tells_mistakes: bool = True) -> int:
    """Does a command's long ``work``, and says with one line and the exit code how it ended.

    0: done. 2: a mistake of the user's (``tells_mistakes`` says whether this process is the one to tell of it). 1:
    something broke in mid-run. 128 + the signal that stopped it.
    """
    try:
        work()
    except UserError as error:
        if tells_mistakes:
            print(f"{program}: error: {error}", file=sys.stderr)
        return 2
    except TrainingFault as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    except Stopped as stopped:
        return stopped.exit_code
    except KeyboardInterrupt:
        return _INTERRUPTED
    return 0


def check_writable(path: Path) -> None:
    """Makes the folder of a file that is written at the end of long work; to be called before it.

    Raises:
        OSError: the folder cannot be made or written into, or ``path`` is a folder itself.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    real = path.resolve()  # what a link points to
    if real.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    # A file is replaced by a new one, once that is whole; what is no file (/dev/stdout) is written to.
    written_to = real if real.exists() and not real.is_file() else real.parent
    if not os.access(written_to, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
