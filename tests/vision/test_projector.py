"""The projector's files, read back as TensorBoard reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from PIL import Image
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from curl_rl.vision.projector import write_projector


@pytest.mark.parametrize("labels", [["a", "b\tc", "d", "e", "f"], None])
def test_tensorboard_finds_the_written_files(tmp_path: Path, labels: list[str] | None) -> None:
    features = torch.tensor([[i + 0.5, -i, 1e-9 * i] for i in range(5)])
    images = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 3, 2, 2) * 50
    write_projector(tmp_path, features, images, labels)

    config = text_format.Parse((tmp_path / "projector_config.pbtxt").read_text(), ProjectorConfig())
    (entry,) = config.embeddings
    assert np.allclose(np.loadtxt(tmp_path / entry.tensor_path, delimiter="\t"), features.numpy())
    assert list(entry.sprite.single_image_dim) == [2, 2]
    sprite = np.asarray(Image.open(tmp_path / entry.sprite.image_path))
    # Three per row, as many rows as needed, the rest black.
    assert sprite[::2, ::2, 0].tolist() == [[0, 50, 100], [150, 200, 0]]
    if labels is None:
        assert entry.metadata_path == ""
    else:
        assert (tmp_path / entry.metadata_path).read_text().splitlines() == ["a", "b c", "d", "e", "f"]
