"""An encoder as a program that needs no Python class of ours: what it takes, its proof, and torch.export's format.

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
"""Largest difference to the module that is let pass, relative to the largest feature or to 1."""

_BATCHES = (1, 2, 7)


@dataclass(frozen=True)
class ProgramInput:
    """What an exported program takes: a batch of any size of square images of one size, cropped by the program."""

    side: Annotated[int | None, at_least(1, "be at least 1 pixel")] = None
    """Height and width, in pixels. [default: those that the encoder was trained on]"""
    dtype: Literal["uint8", "float32"] = "uint8"
    """uint8 in [0, 255], or float32 in [0, 1]."""
    layout: Literal["CHW", "HWC"] = "CHW"
    """Channels first or last."""

    def __post_init__(self) -> None:
        check_ranges(self)

    def shape(self, encoder: PretrainedEncoder) -> tuple[int, int, int]:
        """``(C, H, W)`` or ``(H, W, C)`` of one image.

        Raises:
            ValueError: the encoder's crop does not fit into it.
        """
        side, least = self.side or encoder.rendered_size, encoder.side or 1
        if side < least:
            raise ValueError(f"side {side} is too small: the encoder sees {least}×{least} pixels")
        channels = encoder.observation_shape[0]
        return (channels, side, side) if self.layout == "CHW" else (side, side, channels)

    def random(self, encoder: PretrainedEncoder, batch: int, generator: torch.Generator) -> Tensor:
        """A batch of noise, ``(batch, *shape)``."""
        shape = (batch, *self.shape(encoder))
        pixels = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
        return pixels if self.dtype == "uint8" else pixels / 255


def traceable(encoder: PretrainedEncoder, taken: ProgramInput) -> PretrainedEncoder:
    """A copy of the encoder on the CPU that takes just this input: what is exported, and compared with the outcome."""
    taken.shape(encoder)  # refuses what does not fit
    network = copy.deepcopy(encoder.encoder).cpu()
    return PretrainedEncoder(network, encoder.rendered_size, encoder.provenance, layout=taken.layout, freeze=True)


def example(encoder: PretrainedEncoder, taken: ProgramInput) -> tuple[Tensor]:
    """Arguments to trace the encoder with; the batch stands for any size."""
    return (taken.random(encoder, 2, torch.Generator().manual_seed(0)),)


def dynamic_shapes() -> dict[str, dict[int, Any]]:
    """Which dimension of the input is free, for torch's exporters."""
    return {"observations": {0: torch.export.Dim("batch", min=1)}}


@torch.no_grad()
def largest_difference(
    run: Callable[[Tensor], Tensor], encoder: PretrainedEncoder, taken: ProgramInput, batches: Sequence[int] = _BATCHES
) -> float:
    """How far a program is from the module on noise, relative to the module's largest feature or to 1.

    Args:
        run: the program, ``(B, *shape)`` to ``(B, features)``.
        encoder: as :func:`traceable` gives it.
        taken: what the program takes.
        batches: sizes of the batches that are tried.

    Raises:
        RuntimeError: the program cannot be used: it differs by more than 1e-4, or in shape.
    """
    generator, largest = torch.Generator().manual_seed(1), 0.0
    for batch in batches:
        observations = taken.random(encoder, batch, generator)
        found, right = run(observations), encoder(observations)
        if found.shape != right.shape:
            raise RuntimeError(f"the program gives {tuple(found.shape)} where the encoder gives {tuple(right.shape)}")
        difference = float((found - right).abs().max() / right.abs().max().clamp(min=1))
        if not difference <= TOLERANCE:  # also where it is not a number
            raise RuntimeError(
                f"the program's features differ from the encoder's by {difference:.1e} at batch size {batch}, "
                f"more than {TOLERANCE:.0e}: nothing was written"
            )
        largest = max(largest, difference)
    return largest


def export_program(encoder: PretrainedEncoder, path: Path, taken: ProgramInput = ProgramInput()) -> float:
    """Writes a ``.pt2`` for ``torch.export.load``, ``(B, *shape)`` to ``(B, features)``, once it is proven.

    What will be written is loaded again and compared with the module on noise at several batch sizes.

    Args:
        encoder: what to write.
        path: the file, whole or not at all.
        taken: what the program takes.

    Returns:
        The largest difference that was found (:func:`largest_difference`).

    Raises:
        ValueError: the input does not fit the encoder.
        RuntimeError: the program is not the encoder.
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
    """What a program's file says about itself: the encoder's description, and the input."""
    shape = ["batch", *taken.shape(encoder)]
    return {**describe(encoder), "input": {"name": INPUT, "shape": shape, **dataclasses.asdict(taken)}}
