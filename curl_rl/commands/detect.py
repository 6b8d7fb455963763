"""Detect objects in pictures with a trained detector: draws boxes, known and unknown.

    python scripts/detect.py runs/detection-digits/digits/seed1 photograph.jpg
    python scripts/detect.py RUN *.jpg --out found --score 0.3 --size 192

Green boxes are of known classes, orange ones unknown. What is found in photograph.jpg is printed, and drawn in
photograph-detected.png in --out.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from curl_rl.runs.command_line import check_writable, command_parser, refusals
from curl_rl.runs.compute import prepared_device
from curl_rl.runs.console import printable
from curl_rl.runs.errors import UserError
from curl_rl.vision.detection.detector_file import load_detector
from curl_rl.vision.detection.on_pictures import check_picture, detect_in, read_picture, write_picture


def main(argv: Sequence[str]) -> int:
    """Reads the command line, detects, writes the pictures, and prints what was found."""
    parser = command_parser(__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="directory of a run of train_detector.py")
    parser.add_argument("pictures", type=Path, nargs="+", metavar="IMAGE", help="picture of any size")
    parser.add_argument("--out", type=Path, default=Path("detections"), help="folder of the results [%(default)s]")
    parser.add_argument("--score", type=float, default=0.5, help="least probability, in [0, 1) [%(default)s]")
    parser.add_argument(
        "--size",
        type=int,
        help="longer side to which pictures are scaled, in pixels, up to 4096 [that of the run's scenes]",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<n> [%(default)s]")
    a = parser.parse_args(argv)
    with refusals(parser):
        device = prepared_device(a.device)
        trained = load_detector(a.run)
        trained.detector.to(device)
        for path in a.pictures:  # all of them, before anything is written; their pixels one after the other
            check_picture(path)
        given = {path.resolve() for path in a.pictures}
        outs = [a.out / f"{path.stem}-detected.png" for path in a.pictures]
        for out in outs:
            if outs.count(out) > 1:
                raise UserError(f"each picture needs a name of its own in --out, got several for {out}: rename them")
            if out.resolve() in given:
                raise UserError(f"{out} is one of the pictures and would be replaced: choose another --out folder")
        for path, out in zip(a.pictures, outs, strict=True):
            drawn, lines = detect_in(trained, read_picture(path), size=a.size, score=a.score)
            check_writable(out)
            write_picture(drawn, out)
            print(f"{printable(str(path))}: {', '.join(lines) or 'nothing'}; {printable(str(out))}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
