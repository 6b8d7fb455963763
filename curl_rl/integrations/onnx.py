"""ONNX: encoders and policies for runtimes without Python or torch, verified by onnxruntime before they are written."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import torch
from torch import Tensor

from curl_rl.artifacts.network_file import METADATA
from curl_rl.artifacts.pretrained import PretrainedEncoder
from curl_rl.artifacts.programs import Program, ProgramInput, encoder_program, largest_difference
from curl_rl.installation import installation_of
from curl_rl.runs.files import write_durably

try:
    import onnx
    import onnxruntime  # type: ignore[import-untyped, unused-ignore]
    import onnxscript  # noqa: F401  # needed by torch's exporter
except ModuleNotFoundError as error:
    if error.name not in ("onnx", "onnxruntime", "onnxscript"):
        raise
    raise ImportError(f"curl_rl.integrations.onnx needs {error.name}: {installation_of('onnx')}") from None


def export_onnx(encoder: PretrainedEncoder, path: Path, taken: ProgramInput = ProgramInput()) -> float:  # noqa: B008 (frozen)
    """Writes an encoder as a verified ONNX model, ``observation`` ``(batch, *shape)`` to ``features``
    ``(batch, features)``: see :func:`write_onnx`. The model includes the crop.

    Raises:
        ValueError: the input does not fit the encoder.
        RuntimeError, OSError: as :func:`write_onnx`.
    """
    return write_onnx(encoder_program(encoder, taken), path)


def write_onnx(program: Program, path: Path) -> float:
    """Writes a verified ONNX model whose inputs and output have the program's names.

    Before the file is written, onnxruntime runs the model on noise at several batch sizes and its output is compared
    with the module's. Its ``metadata_props`` hold the program's description under ``curl_rl``, as JSON.

    Args:
        program: the program to export.
        path: the file, written atomically.

    Returns:
        The largest difference found (:func:`~curl_rl.artifacts.programs.largest_difference`).

    Raises:
        RuntimeError: onnxruntime's output differs from the module's.
        OSError: the file cannot be written.
    """
    with warnings.catch_warnings():
        # The exporter's own calls into torch raise warnings.
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        # Several inputs share the one dynamic dimension, as they should.
        warnings.filterwarnings("ignore", "# The axis name", UserWarning)
        exported = torch.onnx.export(
            program.module,
            program.example(),
            dynamo=True,
            verbose=False,
            dynamic_shapes=program.dynamic_shapes(),
            input_names=list(program.inputs),
            output_names=[program.output],
        )
    assert exported is not None
    model = exported.model_proto
    onnx.helper.set_model_props(model, {METADATA: json.dumps(program.description)})
    onnx.checker.check_model(model)
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(*inputs: Tensor) -> Tensor:
        given = {name: value.numpy() for name, value in zip(program.inputs, inputs, strict=True)}
        (output,) = session.run([program.output], given)
        return torch.from_numpy(output)

    difference = largest_difference(run, program)
    write_durably(path, [content])
    return difference
