#!/usr/bin/env python
"""Measure the effect of bfloat16 on a trained agent's gradients, compared with the sampling noise of batches.

    python scripts/measure_precision.py --run runs/cartpole-swingup/cpu/seed1
    python scripts/measure_precision.py --run RUN --batches 100

Uses the weights of the run's newest checkpoint and batches of its replay, with the same crops and noise in both
precisions. Each line of the table is a part of the network and the optimizer of its gradient:

    bfloat16       distance between the gradients in bfloat16 and float32, relative to the length of a batch's gradient
    other batches  distance of a batch's gradient from the mean over batches, relative to the same
    common         length of the mean bfloat16 error over all batches, relative to the same
    by chance      expected value of common if the errors were independent; it falls with the number of batches

Distances over batches are root mean squares. On a GPU, float32 does not use TensorFloat-32 here.
"""

from __future__ import annotations

import contextlib
import copy
import math
import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.precision import update_without_steps
from curl_rl.encoders import Convolutions, Precision
from curl_rl.rl.agent import Agent, UpdateInputs
from curl_rl.rl.loading import load_learner
from curl_rl.runs.command_line import command_parser, refusals
from curl_rl.runs.compute import prepared_device, resolve_precision


class Distances(NamedTuple):
    """Distances of one part's gradients over batches; see the table's legend above."""

    rounding: float
    batches: float
    common: float
    by_chance: float


def main() -> int:
    """Reads the command line, measures, and prints a table."""
    parser = command_parser(__doc__)
    parser.add_argument("--run", type=Path, required=True, metavar="DIRECTORY", help="a run of train_agent.py")
    parser.add_argument(
        "--batches", type=int, default=24, help="batches to sample from its replay, at least 2 [%(default)s]"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<n> [%(default)s]")
    arguments = parser.parse_args()
    if arguments.batches < 2:
        parser.error(f"--batches must be at least 2, got {arguments.batches}")
    with refusals(parser), contextlib.ExitStack() as stack:
        device = prepared_device(arguments.device)
        resolve_precision("bfloat16", device)  # refuses hardware without bfloat16
        learner, config = load_learner(arguments.run, arguments.device)
        sums: dict[str, Sums] = {}
        # Otherwise a GPU would compute float32 in lower precision, and choose kernels nondeterministically.
        stack.enter_context(torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False))
        for _ in tqdm(range(arguments.batches), unit="batch", disable=None, leave=False):
            inputs = learner.agent.draw(learner.sample(), learner.generator)
            exact, rounded = (gradients(learner.agent, inputs, each) for each in ("float32", "bfloat16"))
            for part, gradient in exact.items():
                sums.setdefault(part, Sums(gradient)).add(gradient, rounded[part])
    print(f"{arguments.run}: {config.env}, {arguments.batches} batches of {config.agent.batch_size}, on {device}")
    print("| gradient of | handed to | bfloat16 | other batches | common | by chance |")
    print("| --- | --- | --- | --- | --- | --- |")
    for part, own in sums.items():
        print(f"| {part} | " + " | ".join(f"{value:.1%}" for value in own.distances()) + " |")
    return 0


def gradients(agent: Agent, inputs: UpdateInputs, precision: Precision) -> dict[str, Tensor]:
    """The gradients of one update, computed in this precision, by part and optimizer; weights are not changed."""
    for module in agent.modules():
        if isinstance(module, Convolutions):
            module.precision = precision
    before = copy.deepcopy(agent.state_dict())
    _, handed = update_without_steps(agent, inputs)
    agent.load_state_dict(before)
    parts: dict[str, list[Tensor]] = {}
    for optimizer, own in handed.items():
        for name, gradient in own.items():
            depth = 2 if name.startswith("encoder.") else 1
            part = f"{'.'.join(name.split('.')[:depth])} | {optimizer}"
            parts.setdefault(part, []).append(gradient.flatten().double())
    return {part: torch.cat(own) for part, own in parts.items()}


class Sums:
    """Running sums over one part's gradients, so that they need not all be kept."""

    def __init__(self, like: Tensor) -> None:
        self.count, self.squares, self.squared_differences = 0, 0.0, 0.0
        self.gradient, self.difference = torch.zeros_like(like), torch.zeros_like(like)

    def add(self, exact: Tensor, rounded: Tensor) -> None:
        """Adds one batch's gradient, in both precisions."""
        difference = rounded - exact
        self.count += 1
        self.squares += exact.square().sum().item()
        self.squared_differences += difference.square().sum().item()
        self.gradient += exact
        self.difference += difference

    def distances(self) -> Distances:
        """The distances over all batches added."""
        n = self.count
        length, distance = math.sqrt(self.squares / n), math.sqrt(self.squared_differences / n)
        if not length:
            return Distances(*[math.nan] * 4)  # such as when all ReLUs are dead
        mean, common = self.gradient.norm().item() / n, self.difference.norm().item() / n
        batches = math.sqrt(max(self.squares - n * mean**2, 0.0) / (n - 1))
        chance = math.sqrt(max(self.squared_differences - n * common**2, 0.0) / (n - 1) / n)
        return Distances(distance / length, batches / length, common / length, chance / length)


if __name__ == "__main__":
    raise SystemExit(main())
