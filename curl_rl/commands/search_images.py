"""Search a folder of images for what texts describe: a page with the best pictures and their scores.

    python scripts/search_images.py RUN shapes "a red circle"    # the built-in pictures that no run has seen
    python scripts/search_images.py RUN photos/ "a red fruit" "two people"
    python scripts/search_images.py RUN photos/ "a flag" --most 60 --out flags.html

RUN is a run of scripts/pretrain_text.py --method clip. The page is one file that loads nothing from elsewhere. Scores
are cosines, from -1 to 1; they compare pictures for one text, and say little between texts.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from curl_rl.report.page import Section, figure, page, png
from curl_rl.runs.command_line import check_writable, command_parser, refusals
from curl_rl.runs.compute import prepared_device
from curl_rl.runs.console import counted, printable
from curl_rl.runs.files import write_text
from curl_rl.text.data.pairs import SHAPES
from curl_rl.text.pair_encoder import load_pair_encoder
from curl_rl.text.search import Hit, Pictures, index_pictures, pictures_at, search

_SHOWN = 128  # pixels


def main(argv: Sequence[str]) -> int:
    """Reads the command line, searches, and writes the page."""
    parser = command_parser(__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="directory of a run")
    parser.add_argument(
        "folder", type=os.path.expanduser, metavar="FOLDER", help=f"images, at any depth; or {SHAPES}, built in"
    )
    parser.add_argument("texts", nargs="+", metavar="TEXT", help="what to look for, each in quotes")
    parser.add_argument("--most", type=int, default=24, help="pictures for each text [%(default)s]")
    parser.add_argument("--out", type=Path, default=Path("search.html"), help="file to write [%(default)s]")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<n> [%(default)s]")
    arguments = parser.parse_args(argv)
    if arguments.most < 1:
        parser.error(f"--most must be at least 1, got {arguments.most}")
    if not all(text.strip() for text in arguments.texts):
        parser.error("each TEXT must say what to look for, got an empty one")
    with refusals(parser):
        check_writable(arguments.out)
        device = prepared_device(arguments.device)
        encoder = load_pair_encoder(arguments.run, device)
        pictures = pictures_at(arguments.folder)
        index = index_pictures(encoder, pictures, device)
        found = search(encoder, index, arguments.texts, arguments.most)
        sections = []
        for text, hits in zip(arguments.texts, found, strict=True):
            section = Section(printable(text))
            section.figure(*(_picture(hit, pictures) for hit in hits))
            sections.append(section)
            print(printable(f"{text}: {hits[0].name} ({hits[0].score:.3f})"))
        title = f"{counted(len(index.names), 'image')} of {pictures.title}"
        write_text(arguments.out, page(printable(title), sections))
        print(f"page: {arguments.out}")
    return 0


def _picture(hit: Hit, pictures: Pictures) -> str:
    pixels = np.empty((3, _SHOWN, _SHOWN), dtype=np.uint8)
    if problem := pictures.read(hit.place, _SHOWN, pixels):
        raise OSError(f"{hit.name}, which was just read, cannot be read any more: {problem}")
    caption = printable(f"{hit.score:.3f} {pictures.label(hit.place)}")
    return figure(png(pixels.transpose(1, 2, 0)), "png", caption)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
