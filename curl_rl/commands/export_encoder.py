"""Export a trained encoder for use outside this package.

    python scripts/export_encoder.py runs/cheetah-run/cpu/seed1 --format onnx --output encoder.onnx
    python scripts/export_encoder.py runs/cheetah-run/cpu/seed1 --format exported --output encoder.pt2
    python scripts/export_encoder.py runs/cheetah-run/cpu/seed1 --format safetensors --output cheetah.safetensors

onnx: for onnxruntime and other runtimes, also in C++. exported: for torch.export.load. Both take a batch of any number
of square images of one size, uint8 or, with --dtype float32, float32 in [0, 1], crop them to the encoder's input size,
and return (batch, features); they are compared with the encoder on noise before they are written. safetensors: one file
with weights and description, for curl_rl.load_encoder or any other reader; --size, --dtype and --layout do not apply.
The output's suffix must match the format: .onnx, .pt2 or .safetensors.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from curl_rl.artifacts.encoder_file import as_safetensors, load_encoder
from curl_rl.artifacts.pretrained import PretrainedEncoder
from curl_rl.artifacts.programs import ProgramInput, export_program
from curl_rl.runs.command_line import check_writable, command_parser, refusals
from curl_rl.runs.errors import one_line
from curl_rl.runs.files import write_durably

# Readers, including load_encoder, recognize files by these.
SUFFIXES = {"onnx": ".onnx", "exported": ".pt2", "safetensors": ".safetensors"}


def main(argv: Sequence[str]) -> int:
    """Reads the command line, writes the file, and prints a summary."""
    parser = command_parser(__doc__)
    parser.add_argument("run", type=Path, help="directory of the run, or an encoder.safetensors")
    parser.add_argument("--format", choices=tuple(SUFFIXES), required=True)
    parser.add_argument("--output", type=Path, required=True, help="the file to write; it must not exist yet")
    parser.add_argument("--size", type=int, help="side of the images [that of the encoder's training images]")
    parser.add_argument("--dtype", choices=("uint8", "float32"), help="of the images [uint8]")
    parser.add_argument("--layout", choices=("CHW", "HWC"), help="channels first or last [CHW]")
    parser.add_argument("--overwrite", action="store_true", help="replace the output if it exists")
    arguments = parser.parse_args(argv)
    output: Path = arguments.output
    if output.suffix != SUFFIXES[arguments.format]:
        parser.error(f"--output {output} must end in {SUFFIXES[arguments.format]} for --format {arguments.format}")
    for name in ("size", "dtype", "layout") if arguments.format == "safetensors" else ():
        if (value := getattr(arguments, name)) is not None:
            parser.error(
                f"--{name} {value} does not apply to --format safetensors, which holds no program: leave it out"
            )
    if output.exists() and not arguments.overwrite:
        parser.error(f"--output {output} exists: choose another, or add --overwrite")
    with refusals(parser):
        encoder = load_encoder(arguments.run)
        program_input = ProgramInput(arguments.size, arguments.dtype or "uint8", arguments.layout or "CHW")
        check_writable(output)
        try:
            summary = _write(encoder, arguments.format, output, program_input)
        except RuntimeError as error:
            print(f"{parser.prog}: {one_line(error)}", file=sys.stderr)
            return 1
        print(f"{output}: {summary}")
    return 0


def _write(encoder: PretrainedEncoder, file_format: str, output: Path, program_input: ProgramInput) -> str:
    """Writes the file and returns a summary of it."""
    if file_format == "safetensors":
        write_durably(output, [as_safetensors(encoder)])
        return f"{encoder.features} features, weights and description"
    if file_format == "onnx":
        from curl_rl.integrations.onnx import export_onnx as export
    else:
        export = export_program
    difference = export(encoder, output, program_input)
    sizes = ", ".join(str(side) for side in program_input.shape(encoder))
    return (
        f"{program_input.dtype} (batch, {sizes}) to float32 (batch, {encoder.features}); "
        f"at most {difference:.0e} from the encoder's features on noise"
    )


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
