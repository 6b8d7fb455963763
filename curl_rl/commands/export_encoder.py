"""Export a trained encoder for use outside this package.

    python scripts/export_encoder.py runs/cheetah-run/cpu/seed1 --format onnx --output encoder.onnx
    python scripts/export_encoder.py runs/cheetah-run/cpu/seed1 --format exported --output encoder.pt2
    python scripts/export_encoder.py runs/cheetah-run/cpu/seed1 --format safetensors --output cheetah.safetensors
    python scripts/export_encoder.py runs/text-grammar/simcse-tiny/seed1 --format onnx --output sentences.onnx
    python scripts/export_encoder.py RUN --encoder text --common_space --format onnx --output texts.onnx

onnx: for onnxruntime and other runtimes, also in C++. exported: for torch.export.load. Both take a batch of any number
of square images of one size, uint8 or, with --dtype float32, float32 in [0, 1], crop them to the encoder's input size,
and return (batch, features); they are compared with the encoder on noise before they are written. safetensors: one file
with weights and description, for curl_rl.load_encoder or any other reader; --size, --dtype and --layout do not apply.
An encoder of texts takes (batch, tokens) int64, of the tokenizer.json beside it. Of a run on images with captions,
--encoder text exports that of the texts; with --common_space, the program of either ends with the run's head, and the
product of an image's and a text's vector is their cosine.
The output's suffix must match the format: .onnx, .pt2 or .safetensors.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from curl_rl.artifacts.encoder_file import OfTexts, as_safetensors, load_encoder
from curl_rl.artifacts.programs import Program, ProgramInput, encoder_program
from curl_rl.commands.exports import parse_export, write_export, write_program_as
from curl_rl.runs.command_line import command_parser, refusals
from curl_rl.runs.errors import UserError
from curl_rl.text import load_sentence_encoder, sentence_encoder
from curl_rl.text.pair_encoder import load_pair_encoder
from curl_rl.text.pair_programs import image_program, text_program
from curl_rl.text.sentence_encoder import sentence_program
from curl_rl.text.tokenizer import TOKENIZER


def main(argv: Sequence[str]) -> int:
    """Reads the command line, writes the file, and prints a summary."""
    parser = command_parser(__doc__)
    parser.add_argument("run", type=Path, help="directory of the run, or an encoder.safetensors")
    parser.add_argument(
        "--encoder", choices=("image", "text"), help="which one, of a run on images with captions [image]"
    )
    parser.add_argument(
        "--common_space",
        action="store_true",
        default=None,
        help="of a run on images with captions: end with vectors of length 1 in the common space of both",
    )
    arguments = parse_export(parser, argv, of_programs=("common_space",))
    with refusals(parser):
        if arguments.common_space:
            return _export_embedding(parser.prog, arguments)
        if arguments.encoder == "text":
            return _export_texts(parser.prog, arguments)
        try:
            encoder = load_encoder(arguments.run)
        except OfTexts:
            if arguments.encoder == "image":
                raise
            return _export_texts(parser.prog, arguments)
        return write_export(
            parser.prog,
            arguments,
            lambda taken: encoder_program(encoder, taken),
            lambda: as_safetensors(encoder),
            f"{encoder.features} features",
        )


def _export_texts(program: str, arguments: argparse.Namespace) -> int:
    """Exports an encoder of texts, whose program takes tokens."""
    _refuse_sizes(arguments)
    encoder = load_sentence_encoder(arguments.run)
    return write_export(
        program,
        arguments,
        lambda taken: sentence_program(encoder),
        lambda: sentence_encoder.as_safetensors(encoder),
        f"{encoder.features} features; its tokenizer is the run's {TOKENIZER}",
    )


def _export_embedding(program: str, arguments: argparse.Namespace) -> int:
    """Exports one of two encoders with its head."""
    if arguments.encoder == "text":
        _refuse_sizes(arguments)
    pair = load_pair_encoder(arguments.run)

    def as_program(taken: ProgramInput) -> Program:
        return text_program(pair) if arguments.encoder == "text" else image_program(pair, taken)

    return write_program_as(program, arguments, as_program)


def _refuse_sizes(arguments: argparse.Namespace) -> None:
    for name in ("size", "dtype", "layout"):
        if (value := getattr(arguments, name)) is not None:
            raise UserError(f"--{name} {value} does not apply to an encoder of texts, which takes tokens: leave it out")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
