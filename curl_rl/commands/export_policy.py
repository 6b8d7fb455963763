"""Export a trained agent's policy for use outside this package.

    python scripts/export_policy.py runs/cheetah-run/cpu/seed1 --format onnx --output policy.onnx
    python scripts/export_policy.py runs/cheetah-run/cpu/seed1 --format exported --sampled --output policy.pt2
    python scripts/export_policy.py runs/cheetah-run/cpu/seed1 --format safetensors --output cheetah.safetensors

onnx: for onnxruntime and other runtimes, also in C++. exported: for torch.export.load. Both take a batch of any number
of observations, stacks of square frames of one size, oldest first, uint8 or, with --dtype float32, float32 in [0, 1],
crop them to the center, and return the deterministic actions, float32 (batch, actions) in [-1, 1]; they are compared
with the policy on noise before they are written. With --sampled they take standard normal noise (batch, actions) as
well, and return sampled actions. safetensors: one file with weights and description, for curl_rl.load_policy or any
other reader; --size, --dtype, --layout and --sampled do not apply. The output's suffix must match the format: .onnx,
.pt2 or .safetensors. The agent is that of the newest checkpoint; docs/acting.md shows how to act with it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from curl_rl.commands.exports import parse_export, write_export
from curl_rl.rl.policy_file import as_safetensors, load_policy
from curl_rl.rl.policy_program import policy_program
from curl_rl.runs.command_line import command_parser, refusals


def main(argv: Sequence[str]) -> int:
    """Reads the command line, writes the file, and prints a summary."""
    parser = command_parser(__doc__)
    parser.add_argument("run", type=Path, help="directory of the run, or a policy in safetensors")
    parser.add_argument("--sampled", action="store_true", default=None, help="sample actions by an input of noise")
    arguments = parse_export(parser, argv, of_programs=("sampled",))
    with refusals(parser):
        policy = load_policy(arguments.run)
        return write_export(
            parser.prog,
            arguments,
            lambda taken: policy_program(policy, taken, sampled=bool(arguments.sampled)),
            lambda: as_safetensors(policy),
            f"actions of size {policy.action_dim}",
        )


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
