"""What the commands that export share: options, checks, and writing the file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from curl_rl.artifacts.programs import Program, ProgramInput, write_program
from curl_rl.runs.command_line import check_writable
from curl_rl.runs.errors import one_line
from curl_rl.runs.files import write_durably

# Readers, including load_encoder and load_policy, recognize files by these.
SUFFIXES = {"onnx": ".onnx", "exported": ".pt2", "safetensors": ".safetensors"}


def parse_export(
    parser: argparse.ArgumentParser, argv: Sequence[str], of_programs: Sequence[str] = ()
) -> argparse.Namespace:
    """Adds the options of an export to the parser and parses the command line.

    Args:
        parser: has the command's own options.
        argv: the command's arguments.
        of_programs: the command's own options that do not apply to safetensors, by name; None if not given.
    """
    parser.add_argument("--format", choices=tuple(SUFFIXES), required=True)
    parser.add_argument("--output", type=Path, required=True, help="the file to write; it must not exist yet")
    parser.add_argument("--size", type=int, help="side of the images [that of the training images]")
    parser.add_argument("--dtype", choices=("uint8", "float32"), help="of the images [uint8]")
    parser.add_argument("--layout", choices=("CHW", "HWC"), help="channels first or last [CHW]")
    parser.add_argument("--overwrite", action="store_true", help="replace the output if it exists")
    arguments = parser.parse_args(argv)
    output: Path = arguments.output
    if output.suffix != SUFFIXES[arguments.format]:
        parser.error(f"--output {output} must end in {SUFFIXES[arguments.format]} for --format {arguments.format}")
    for name in ("size", "dtype", "layout", *of_programs) if arguments.format == "safetensors" else ():
        if (value := getattr(arguments, name)) is not None:
            given = f"--{name}" if value is True else f"--{name} {value}"
            parser.error(f"{given} does not apply to --format safetensors, which holds no program: leave it out")
    if output.exists() and not arguments.overwrite:
        parser.error(f"--output {output} exists: choose another, or add --overwrite")
    return arguments


def write_export(
    program: str,
    arguments: argparse.Namespace,
    as_program: Callable[[ProgramInput], Program],
    as_safetensors: Callable[[], bytes],
    summary: str,
) -> int:
    """Writes the file, prints a summary, and returns the exit code.

    Args:
        program: name of the command, for messages.
        arguments: from :func:`parse_export`.
        as_program: the program for these images; may raise ValueError.
        as_safetensors: the content of a safetensors file.
        summary: of that content.
    """
    output: Path = arguments.output
    if arguments.format != "safetensors":
        return write_program_as(program, arguments, as_program)
    check_writable(output)
    write_durably(output, [as_safetensors()])
    print(f"{output}: {summary}, weights and description")
    return 0


def write_program_as(program: str, arguments: argparse.Namespace, as_program: Callable[[ProgramInput], Program]) -> int:
    """:func:`write_export` for what has programs only."""
    output: Path = arguments.output
    taken = ProgramInput(arguments.size, arguments.dtype or "uint8", arguments.layout or "CHW")
    exported = as_program(taken)
    check_writable(output)
    if arguments.format == "onnx":
        from curl_rl.integrations.onnx import write_onnx as write
    else:
        write = write_program
    try:
        difference = write(exported, output)
    except RuntimeError as error:
        print(f"{program}: {one_line(error)}", file=sys.stderr)
        return 1
    inputs = exported.example()
    takes = " and ".join(_described(value) for value in inputs)
    print(
        f"{output}: {takes} to {_described(exported.module(*inputs))}; "
        f"at most {difference:.0e} from the {exported.name}'s {exported.output} on noise"
    )
    return 0


def _described(value: Tensor) -> str:
    sizes = ", ".join(str(size) for size in value.shape[1:])
    return f"{str(value.dtype).removeprefix('torch.')} (batch, {sizes})"
