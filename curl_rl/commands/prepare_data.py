"""Prepare images with captions, sentences and judged pairs from packages of Debian and PyPI.

    python scripts/prepare_data.py shapes --to data/shapes                   # made, for a first try
    apt-get download fonts-noto-color-emoji unicode-cldr-core && for p in *.deb; do dpkg-deb -x $p packages; done
    python scripts/prepare_data.py emoji --from packages --to data/emoji
    pip download --no-deps gensim && python -m zipfile -e gensim-*.whl packages
    python scripts/prepare_data.py lee --from packages --to data/lee

Packages are read where they are installed (/) or unpacked (--from): nothing is downloaded or installed, and root is
not needed. The folder appears when it is complete; LICENSE.txt and provenance.json in it name what it was made from.
The licenses differ: read them before you pass data, or what was made of it, on. docs/text.md describes the files.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from curl_rl.runs.command_line import command_parser, refusals
from curl_rl.runs.console import printable
from curl_rl.text.packages.prepared import PROVENANCE, prepared_set
from curl_rl.text.packages.sets import SETS, Request


def main(argv: Sequence[str]) -> int:
    """Reads the command line, and writes the data set."""
    parser = command_parser(__doc__)
    listed = "; ".join(f"{name}: {one.summary}" for name, one in SETS.items())
    parser.add_argument("set", choices=SETS, metavar="SET", help=listed)
    parser.add_argument(
        "--from",
        dest="roots",
        type=Path,
        nargs="+",
        default=[Path("/")],
        metavar="DIR",
        help="folders into which packages were unpacked, or folders of such folders [/: installed ones]",
    )
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="new folder to write")
    parser.add_argument(
        "--language", default="es", help="second language of the captions, such as de; en: none [%(default)s]"
    )
    parser.add_argument("--count", type=int, default=1000, help="size of a made set [%(default)s]")
    parser.add_argument("--seed", type=int, default=0, help="seed of a made set [%(default)s]")
    arguments = parser.parse_args(argv)
    if arguments.count < 20:
        parser.error(f"--count must be at least 20, got {arguments.count}")
    if not re.fullmatch(r"\w+", arguments.language):
        parser.error(f"--language must be a code such as de or pt_BR, got {arguments.language!r}")
    with refusals(parser):
        request = Request(
            arguments.roots, tuple(dict.fromkeys(["en", arguments.language])), arguments.count, arguments.seed
        )
        with prepared_set(arguments.to) as into:
            SETS[arguments.set].prepare(request, into)
        facts = json.loads((arguments.to / PROVENANCE).read_text(encoding="utf-8"))
        for package in facts["packages"]:
            line = "{holds}: {package} {version} ({registry}), {license}".format(**package)
            print(printable(line))
        sizes = {key: value for key, value in facts.items() if key not in ("set", "packages", "sha256")}
        print(printable(f"{arguments.to}: {json.dumps(sizes)[1:-1]}"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
