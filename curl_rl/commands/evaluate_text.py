"""Evaluate encoders of texts, and of images with captions: agreement with people, retrieval, zero-shot classes.

    python scripts/evaluate_text.py RUN --data data/lee data/simlex
    python scripts/evaluate_text.py RUN --data data/emoji data/emojione data/stamps --json clip.json

What is measured depends on what is in a folder (docs/text.md, scripts/prepare_data.py):

- scored*.tsv, judged pairs of texts: Spearman's ρ of the cosines with people's scores, times 100. Beside it: the same
  network with random weights, the mean of the trained embeddings of a text's tokens, and TF-IDF.
- captions.tsv, images with captions, for runs of --method clip: how often the right caption is among the first 1, 5 and
  10 for an image, and the right image for a caption, in percent; among the first captions (names) and among all; and
  zero-shot classification by the names of the folders. Beside it: random weights; the captions of the run's training
  images with similar pixels; and chance.

Test images are used if the folder has a split. Nothing is trained, and nothing is chosen on the data.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from curl_rl.artifacts.head_file import TEXT_HEAD
from curl_rl.encoders import TextEncoder
from curl_rl.runs.command_line import check_writable, command_parser, refusals
from curl_rl.runs.compute import prepared_device
from curl_rl.runs.console import printable
from curl_rl.runs.directory import CONFIG
from curl_rl.runs.errors import UserError
from curl_rl.runs.files import write_json
from curl_rl.text.data.pairs import SHAPES
from curl_rl.text.data.tables import CAPTIONS
from curl_rl.text.evaluation import measures
from curl_rl.text.evaluation.measures import PairMeasures, Scores
from curl_rl.text.evaluation.zero_shot import PROMPTS, check_prompts
from curl_rl.text.pair_config import read_config
from curl_rl.text.pair_encoder import load_pair_encoder
from curl_rl.text.pair_pretraining import pairs_of
from curl_rl.text.sentence_encoder import load_sentence_encoder
from curl_rl.vision.data.image_sets import Split
from curl_rl.vision.data.splits import find_splits


def main(argv: Sequence[str]) -> int:
    """Reads the command line, evaluates, and prints a table for each data set."""
    parser = command_parser(__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="directory of a run")
    parser.add_argument(
        "--data", nargs="+", required=True, metavar="DATA", help="folders as described above, or shapes, a built-in set"
    )
    parser.add_argument(
        "--split", choices=("test", "train"), help="images to use [test; train where a folder has no splits]"
    )
    parser.add_argument(
        "--prompts",
        nargs="+",
        default=list(PROMPTS),
        help="texts that name a class, {} for the name [%(default)s]",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random weights [%(default)s]")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<n> [%(default)s]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measure here as well")
    arguments = parser.parse_args(argv)
    with refusals(parser):
        if arguments.json:
            check_writable(arguments.json)
        check_prompts(arguments.prompts)
        for data in arguments.data:  # before the first one is measured, which takes a while
            _check_data(data)
        device = prepared_device(arguments.device)
        found: dict[str, dict[str, Scores]] = {}
        for data in arguments.data:
            columns = _columns(arguments, data, device)
            found[data] = columns
            print(printable(data))
            print("\n".join(map(printable, measures.table(columns).splitlines())))
        if arguments.json:
            write_json(arguments.json, {"run": str(arguments.run), "data": found})
    return 0


def _check_data(data: str) -> None:
    folder = Path(data).expanduser()
    if data == SHAPES or (folder / CAPTIONS).is_file() or measures.judged_pairs(folder):
        return
    if not folder.is_dir():
        raise UserError(f"no folder {data}")
    raise UserError(f"{data} must have {CAPTIONS} or scored*.tsv, and has neither: scripts/prepare_data.py makes some")


def _columns(arguments: Any, data: str, device: torch.device) -> dict[str, Scores]:
    """The measures on one data set, by encoder or baseline."""
    folder = Path(data).expanduser()
    judged = {} if data == SHAPES else measures.judged_pairs(folder)
    if judged:
        return _agreement(arguments, folder, judged, device)
    return _retrieval(arguments, data if data == SHAPES else str(folder), device)


def _agreement(arguments: Any, folder: Path, judged: Any, device: torch.device) -> dict[str, Scores]:
    texts = load_sentence_encoder(arguments.run).to(device)
    columns = {"run": measures.agreement(judged, texts)}
    if (arguments.run / f"{TEXT_HEAD}.safetensors").is_file():
        pairs = load_pair_encoder(arguments.run, device)
        columns["with head"] = measures.agreement(judged, pairs.embed_texts)
    if isinstance(texts.encoder, TextEncoder):
        columns["mean of tokens"] = measures.agreement(judged, measures.mean_of_tokens(texts.encoder, texts.tokenizer))
    texts.encoder = texts.encoder.fresh(arguments.seed).to(device).eval()
    columns["untrained"] = measures.agreement(judged, texts)
    return {**columns, "TF-IDF": measures.agreement_of_words(judged, folder)}


def _retrieval(arguments: Any, data: str, device: torch.device) -> dict[str, Scores]:
    encoder = load_pair_encoder(arguments.run, device)
    config = replace(read_config(arguments.run / CONFIG), image_size=encoder.image_size, small_images="upscale")
    own = PairMeasures(pairs_of(config, _split(arguments.split, data), device, data), device)
    columns = {
        "run": own.encoder(encoder, arguments.prompts),
        "untrained": own.encoder(encoder.untrained(arguments.seed).to(device), arguments.prompts),
    }
    try:
        known = PairMeasures(pairs_of(config, "train", device), device)
    except UserError as error:
        print(f"no baseline of pixels, which needs the run's training images: {error}", file=sys.stderr)
    else:
        columns["pixels"] = own.neighbors(known)
    return {**columns, "chance": own.chance()}


def _split(asked: Split | None, data: str) -> Split:
    """The split asked for, or the test images where there are some."""
    if asked is not None or data == SHAPES:
        return asked or "test"
    return "train" if find_splits(data).test is None else "test"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
