"""Encoders as programs that need no code of this package: their input, their verification, and torch.export's format.

ONNX, which needs further packages, is in ``curl_rl.integrations.onnx``.
"""

from __future__ import annotations

import copy
import dataclasses
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from curl_rl.artifacts.encoder_file import describe
from curl_rl.artifacts.network_file import METADATA
from curl_rl.artifacts.pretrained import PretrainedEncoder
from curl_rl.ranges import at_least, check_ranges
from curl_rl.runs.files import write_durably

INPUT, OUTPUT = "observation", "features"
"""Names of a program's input and output."""
TOLERANCE = 1e-4
"""Largest accepted difference from the module, relative to the largest feature or to 1."""

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


def traceable(encoder: PretrainedEncoder, taken: ProgramInput) -> PretrainedEncoder:
    """A copy of the encoder on the CPU, restricted to this input: the module to export and to compare with."""
    taken.shape(encoder)  # refuses images that do not fit
    network = copy.deepcopy(encoder.encoder).cpu()
    return PretrainedEncoder(network, encoder.rendered_size, encoder.provenance, layout=taken.layout, freeze=True)


def example(encoder: PretrainedEncoder, taken: ProgramInput) -> tuple[Tensor]:
    """Arguments for tracing the encoder; their batch size is made dynamic."""
    return (taken.random(encoder, 2, torch.Generator().manual_seed(0)),)


def dynamic_shapes() -> dict[str, dict[int, Any]]:
    """The dynamic dimension of the input, for torch's exporters."""
    return {"observations": {0: torch.export.Dim("batch", min=1)}}


@torch.no_grad()
def largest_difference(
    run: Callable[[Tensor], Tensor], encoder: PretrainedEncoder, taken: ProgramInput, batches: Sequence[int] = _BATCHES
) -> float:
    """The largest difference between program and module on noise, relative to the module's largest feature or to 1.

    Args:
        run: the program, ``(B, *shape)`` to ``(B, features)``.
        encoder: the module, from :func:`traceable`.
        taken: the program's input.
        batches: batch sizes to test.

    Raises:
        RuntimeError: the program's output differs by more than 1e-4, or in shape.
    """
    generator, largest = torch.Generator().manual_seed(1), 0.0
    for batch in batches:
        observations = taken.random(encoder, batch, generator)
        found, right = run(observations), encoder(observations)
        if found.shape != right.shape:
            raise RuntimeError(
                f"the program returns {tuple(found.shape)}, but the encoder returns {tuple(right.shape)}"
            )
        difference = float((found - right).abs().max() / right.abs().max().clamp(min=1))
        if not difference <= TOLERANCE:  # also true for NaN
            raise RuntimeError(
                f"the program's features differ from the encoder's by {difference:.1e} at batch size {batch}, "
                f"more than {TOLERANCE:.0e}: nothing was written"
            )
        largest = max(largest, difference)
    return largest


def export_program(encoder: PretrainedEncoder, path: Path, taken: ProgramInput = ProgramInput()) -> float:
    """Writes a verified ``.pt2`` for ``torch.export.load``, ``(B, *shape)`` to ``(B, features)``.

    Before the file is written, its content is loaded and compared with the module on noise at several batch sizes.

    Args:
        encoder: the encoder to export.
        path: the file, written atomically.
        taken: the program's input.

    Returns:
        The largest difference found (:func:`largest_difference`).

    Raises:
        ValueError: the input does not fit the encoder.
        RuntimeError: the program's features differ from the encoder's.
        OSError: the file cannot be written.
    """
    module = traceable(encoder, taken)
    program = torch.export.export(module, example(module, taken), dynamic_shapes=dynamic_shapes(), strict=False)
    archive = io.BytesIO()
    torch.export.save(program, archive, extra_files={f"{METADATA}.json": json.dumps(about(encoder, taken))})
    archive.seek(0)
    difference = largest_difference(torch.export.load(archive).module(), module, taken)
    write_durably(path, [archive.getvalue()])
    return difference


def about(encoder: PretrainedEncoder, taken: ProgramInput) -> dict[str, Any]:
    """The metadata of a program's file: the encoder's description, and the input."""
    shape = ["batch", *taken.shape(encoder)]
    return {**describe(encoder), "input": {"name": INPUT, "shape": shape, **dataclasses.asdict(taken)}}
