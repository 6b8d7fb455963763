"""Writes features in the file format of TensorBoard's embedding projector."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from curl_rl.runs.files import own_folder, write_durably

_FOLDER = "projector"
_MOST_PIXELS = 8192  # side of the sprite of all images; the largest that browsers accept


def write_projector(directory: Path, features: Tensor, images: Tensor, labels: Sequence[str] | None) -> None:
    """Writes ``projector_config.pbtxt``, which TensorBoard looks for, and ``projector/`` into ``directory``.

    Args:
        directory: the run directory, which holds TensorBoard's events.
        features: ``(N, D)``.
        images: ``(N, 3, S, S)`` uint8, the images of the features; as many as fit into one sprite are shown.
        labels: N names, or None.
    """
    folder = own_folder(directory, _FOLDER)
    side = images.shape[-1]
    per_row = min(int(np.ceil(np.sqrt(len(images)))), _MOST_PIXELS // side)
    shown = min(len(images), per_row * (_MOST_PIXELS // side))
    features, images = features[:shown].float().cpu(), images[:shown].cpu()

    rows = ("\t".join(f"{value:.6g}" for value in row) + "\n" for row in features.tolist())
    write_durably(folder / "features.tsv", (row.encode() for row in rows))
    lines = [f'  tensor_name: "features"\n  tensor_path: "{_FOLDER}/features.tsv"\n']
    if labels is not None:
        # In this format a single column has no heading, and a tab or line break in a label would split it.
        write_durably(folder / "labels.tsv", (" ".join(label.split()).encode() + b"\n" for label in labels[:shown]))
        lines.append(f'  metadata_path: "{_FOLDER}/labels.tsv"\n')
    sprite = io.BytesIO()
    _sprite(images, per_row).save(sprite, format="PNG")
    write_durably(folder / "images.png", [sprite.getvalue()])
    lines.append(
        f'  sprite {{\n    image_path: "{_FOLDER}/images.png"\n'
        f"    single_image_dim: {side}\n    single_image_dim: {side}\n  }}\n"
    )
    write_durably(directory / "projector_config.pbtxt", [f"embeddings {{\n{''.join(lines)}}}\n".encode()])


def _sprite(images: Tensor, per_row: int) -> Image.Image:
    """All images in one picture, row by row."""
    missing = -len(images) % per_row
    filled = torch.cat([images, images.new_zeros(missing, *images.shape[1:])])
    rows = [torch.cat(list(row), dim=2) for row in filled.split(per_row)]
    return Image.fromarray(np.ascontiguousarray(torch.cat(rows, dim=1).permute(1, 2, 0).numpy()))
