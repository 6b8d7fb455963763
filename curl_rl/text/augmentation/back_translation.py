"""Back-translation by Apertium: into another language and back, on this machine (UDA, arXiv 1904.12848, section 2.2).

Apertium translates by rules, without randomness: a sentence has one back-translation, or none that differs from it.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence

from curl_rl.runs.errors import UserError, one_line

LANGUAGES = ("eng", "spa")
"""Language of the sentences, and the one in between, in Apertium's codes."""


def back_translate(texts: Sequence[str], languages: tuple[str, str] = LANGUAGES) -> list[str]:
    """Translates sentences into another language and back.

    Args:
        texts: sentences, each on one line.
        languages: their language and the one in between, such as ``("eng", "spa")``.

    Returns:
        As many sentences. Words that Apertium does not know stay as they are.

    Raises:
        UserError: Apertium or the pair of languages is not installed, or it failed.
    """
    here, there = languages
    return _translate(_translate(texts, here, there), there, here)


def _translate(texts: Sequence[str], source: str, target: str) -> list[str]:
    program = shutil.which("apertium")
    if program is None:
        raise UserError(
            "back-translation needs Apertium and its pair of languages, got no program apertium: install them (Debian: "
            f"apt-get install apertium-{source}-{target} or apertium-{target}-{source})"
        )
    # -u: no stars before unknown words. -f line: each line by itself.
    command = [program, "-u", "-f", "line", f"{source}-{target}"]
    lines = "".join(f"{' '.join(text.split())}\n" for text in texts)
    try:
        done = subprocess.run(command, input=lines, capture_output=True, text=True, encoding="utf-8", check=True)
    except subprocess.CalledProcessError as error:
        said = " ".join((error.stderr or error.stdout).split()) or f"exit code {error.returncode}"
        raise UserError(f"apertium cannot translate from {source} to {target}: {said[:200]}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"apertium cannot be run: {one_line(error)}") from None
    found = [" ".join(line.split()) for line in done.stdout.splitlines()]
    if len(found) != len(texts):
        raise UserError(f"apertium must translate each of {len(texts):,} sentences, got {len(found):,} lines of it")
    return found
