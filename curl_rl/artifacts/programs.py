"""Networks as programs that need no code of this package: inputs, verification, and torch.export's format.

ONNX, which needs further packages, is in ``curl_rl.integrations.onnx``; the program of an agent's policy is in
``curl_rl.rl.policy_program``.
"""

from __future__ import annotations

import copy
import dataclasses
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from curl_rl.artifacts.encoder_file import describe
from curl_rl.artifacts.network_file import METADATA
from curl_rl.artifacts.pretrained import PretrainedEncoder
from curl_rl.ranges import at_least, check_ranges
from curl_rl.runs.files import write_durably

INPUT, OUTPUT = "observation", "features"
"""Names of an encoder's input and output as a program."""
TOLERANCE = 1e-4
"""Largest accepted difference from the module, relative to its largest output or to 1."""

_BATCHES = (1, 2, 7)


@dataclass(frozen=True)
class ProgramInput:
    """Input of an exported program: a batch of any size of square images of one size, which the program crops."""

    side: Annotated[int | None, at_least(1, "be at least 1 pixel")] = None
    """Height and width, in pixels. [default: the size that the encoder was trained on]"""
    dtype: Literal["uint8", "float32"] = "uint8"
    """uint8 in [0, 255], or float32 in [0, 1]."""
    layout: Literal["CHW", "HWC"] = "CHW"
    """Channels first or last."""

    def __post_init__(self) -> None:
        check_ranges(self)

    def shape(self, encoder: PretrainedEncoder) -> tuple[int, int, int]:
        """``(C, H, W)`` or ``(H, W, C)`` of one image.

        Raises:
            ValueError: the image is smaller than the encoder's crop.
        """
        side, least = self.side or encoder.rendered_size, encoder.side or 1
        if side < least:
            raise ValueError(f"side must be at least {least}, the size of the encoder's crop, got {side}")
        channels = encoder.observation_shape[0]
        return (channels, side, side) if self.layout == "CHW" else (side, side, channels)

    def random(self, encoder: PretrainedEncoder, batch: int, generator: torch.Generator) -> Tensor:
        """A batch of noise, ``(batch, *shape)``."""
        shape = (batch, *self.shape(encoder))
        pixels = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
        return pixels if self.dtype == "uint8" else pixels / 255

    def spec(self, encoder: PretrainedEncoder) -> dict[str, Any]:
        """The input in the description of a program's file."""
        shape, pixels = ["batch", *self.shape(encoder)], [0, 255] if self.dtype == "uint8" else [0, 1]
        return {"name": INPUT, "shape": shape, **dataclasses.asdict(self), "range": pixels}


Draw = Callable[[int, torch.Generator], Tensor]
"""Draws an input for a batch of this size."""


@dataclass(frozen=True)
class Program:
    """A network as it is exported: what it takes, what it returns, and its description."""

    name: str
    """The kind of network, for messages: ``encoder``."""
    module: nn.Module
    """On the CPU, in evaluation mode and without gradients; takes the inputs by position and returns one tensor."""
    inputs: Mapping[str, Draw]
    """The inputs by name, in order, each with random values of its range. The first dimension of each is the batch."""
    output: str
    """Name of the output."""
    description: dict[str, Any]
    """Stored in the file; JSON-serializable."""

    def random(self, batch: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Random inputs for a batch of this size."""
        return tuple(draw(batch, generator) for draw in self.inputs.values())

    def example(self) -> tuple[Tensor, ...]:
        """Inputs for tracing; their batch size is made dynamic."""
        return self.random(2, torch.Generator().manual_seed(0))

    def dynamic_shapes(self) -> tuple[dict[int, Any], ...]:
        """The dynamic dimension of each input, for torch's exporters."""
        batch = torch.export.Dim("batch", min=1)
        return tuple({0: batch} for _ in self.inputs)


def encoder_program(encoder: PretrainedEncoder, taken: ProgramInput = ProgramInput()) -> Program:
    """The program of an encoder: ``observation`` ``(batch, *shape)`` to ``features`` ``(batch, features)``.

    Its module is a frozen copy of the encoder that takes images in this order only.

    Raises:
        ValueError: the input does not fit the encoder.
    """
    spec = taken.spec(encoder)  # refuses images that do not fit
    network = copy.deepcopy(encoder.encoder).cpu()
    return Program(
        "encoder",
        PretrainedEncoder(network, encoder.rendered_size, encoder.provenance, layout=taken.layout, freeze=True),
        {INPUT: lambda batch, generator: taken.random(encoder, batch, generator)},
        OUTPUT,
        {**describe(encoder), "input": spec},
    )


@torch.no_grad()
def largest_difference(run: Callable[..., Tensor], program: Program, batches: Sequence[int] = _BATCHES) -> float:
    """The largest difference between an exported program and its module on noise, relative to the module's largest
    output or to 1.

    Args:
        run: the exported program; takes the inputs by position.
        program: the program that was exported.
        batches: batch sizes to test.

    Raises:
        RuntimeError: the output differs by more than 1e-4, or in shape.
    """
    generator, largest = torch.Generator().manual_seed(1), 0.0
    for batch in batches:
        inputs = program.random(batch, generator)
        found, right = run(*inputs), program.module(*inputs)
        if found.shape != right.shape:
            raise RuntimeError(
                f"the program returns {tuple(found.shape)}, but the {program.name} returns {tuple(right.shape)}"
            )
        difference = float((found - right).abs().max() / right.abs().max().clamp(min=1))
        if not difference <= TOLERANCE:  # also true for NaN
            raise RuntimeError(
                f"the program's output, {program.output}, differs from the {program.name}'s by {difference:.1e} at "
                f"batch size {batch}, more than {TOLERANCE:.0e}: nothing was written"
            )
        largest = max(largest, difference)
    return largest


def write_program(program: Program, path: Path) -> float:
    """Writes a verified ``.pt2`` for ``torch.export.load``, which takes the program's inputs by position.

    Before the file is written, its content is loaded and compared with the module on noise at several batch sizes.

    Args:
        program: the program to export.
        path: the file, written atomically.

    Returns:
        The largest difference found (:func:`largest_difference`).

    Raises:
        RuntimeError: the program's output differs from the module's.
        OSError: the file cannot be written.
    """
    exported = torch.export.export(
        program.module, program.example(), dynamic_shapes=program.dynamic_shapes(), strict=False
    )
    archive = io.BytesIO()
    torch.export.save(exported, archive, extra_files={f"{METADATA}.json": json.dumps(program.description)})
    archive.seek(0)
    difference = largest_difference(torch.export.load(archive).module(), program)
    write_durably(path, [archive.getvalue()])
    return difference


def export_program(encoder: PretrainedEncoder, path: Path, taken: ProgramInput = ProgramInput()) -> float:
    """Writes an encoder as a verified ``.pt2``, ``(B, *shape)`` to ``(B, features)``: see :func:`write_program`.

    Raises:
        ValueError: the input does not fit the encoder.
        RuntimeError, OSError: as :func:`write_program`.
    """
    return write_program(encoder_program(encoder, taken), path)
