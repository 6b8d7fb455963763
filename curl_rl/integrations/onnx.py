"""ONNX: encoders for runtimes without Python or torch, verified with onnxruntime before they are written."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import torch
from torch import Tensor

from curl_rl.artifacts.network_file import METADATA
from curl_rl.artifacts.pretrained import PretrainedEncoder
from curl_rl.artifacts.programs import (
    INPUT,
    OUTPUT,
    ProgramInput,
    about,
    dynamic_shapes,
    example,
    largest_difference,
    traceable,
)
from curl_rl.runs.files import write_durably

try:
    import onnx
    import onnxruntime  # type: ignore[import-untyped, unused-ignore]
    import onnxscript  # noqa: F401  # needed by torch's exporter
except ModuleNotFoundError as error:
    if error.name not in ("onnx", "onnxruntime", "onnxscript"):
        raise
    raise ImportError(
        f"curl_rl.integrations.onnx needs {error.name}: pip install -e '.[onnx]' in curl_rl's clone"
    ) from None


def export_onnx(encoder: PretrainedEncoder, path: Path, taken: ProgramInput = ProgramInput()) -> float:  # noqa: B008 (frozen)
    """Writes a verified ONNX model, ``observation`` ``(batch, *shape)`` to ``features`` ``(batch, features)``.

    Before the file is written, onnxruntime runs the model on noise at several batch sizes and its features are compared
    with the module's. The model includes the crop. Its ``metadata_props`` hold the encoder's description under
    ``curl_rl``, as JSON.

    Args:
        encoder: the encoder to export.
        path: the file, written atomically.
        taken: the model's input.

    Returns:
        The largest difference found (:func:`~curl_rl.artifacts.programs.largest_difference`).

    Raises:
        ValueError: the input does not fit the encoder.
        RuntimeError: onnxruntime's features differ from the encoder's.
        OSError: the file cannot be written.
    """
    module = traceable(encoder, taken)
    with warnings.catch_warnings():
        # The exporter's own calls into torch raise warnings.
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        exported = torch.onnx.export(
            module,
            example(module, taken),
            dynamo=True,
            verbose=False,
            dynamic_shapes=dynamic_shapes(),
            input_names=[INPUT],
            output_names=[OUTPUT],
        )
    assert exported is not None
    model = exported.model_proto
    onnx.helper.set_model_props(model, {METADATA: json.dumps(about(encoder, taken))})
    onnx.checker.check_model(model)
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(observations: Tensor) -> Tensor:
        (features,) = session.run([OUTPUT], {INPUT: observations.numpy()})
        return torch.from_numpy(features)

    difference = largest_difference(run, module, taken)
    write_durably(path, [content])
    return difference
