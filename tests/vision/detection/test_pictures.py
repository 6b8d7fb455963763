"""Pictures of detections: where boxes are drawn, in which color, and which are left out of a gallery."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from curl_rl.vision.detection.detector import Detections
from curl_rl.vision.detection.evaluation import Shown
from curl_rl.vision.detection.pictures import KNOWN_COLOR, TRUTH_COLOR, UNKNOWN_COLOR, draw_detections, gallery
from curl_rl.vision.detection.sampling import Truth

TRUTH = Truth(torch.tensor([[[2.0, 40, 20, 60], [0, 0, 0, 0]]]), torch.tensor([[1, -1]]))
FOUND = Detections(torch.tensor([[10.0, 20, 30, 36], [40, 20, 60, 36]]), torch.tensor([0, 2]), torch.tensor([0.9, 0.2]))


def test_boxes_of_each_kind_have_their_color() -> None:
    picture = np.asarray(draw_detections(Image.new("RGB", (64, 64)), FOUND, ("cat", "dog"), TRUTH, scale=4))
    assert picture.shape == (256, 256, 3)
    # The left edges, below the names.
    assert tuple(picture[130, 40]) == KNOWN_COLOR
    assert tuple(picture[130, 160]) == UNKNOWN_COLOR
    assert tuple(picture[200, 8]) == TRUTH_COLOR
    assert tuple(picture[130, 100]) == (0, 0, 0)


def test_names_lie_in_the_picture_and_hide_little_of_it() -> None:
    everywhere = Detections(torch.tensor([[0.0, 0, 64, 64]]), torch.tensor([0]), torch.tensor([0.9]))
    picture = np.asarray(draw_detections(Image.new("RGB", (64, 64)), everywhere, ("cat",), scale=4))
    assert (picture[254, 2:20] == KNOWN_COLOR).all()  # the name's background, below its letters
    flat = Detections(torch.tensor([[100.0, 30, 200, 39]]), torch.tensor([0]), torch.tensor([0.9]))
    column = np.asarray(draw_detections(Image.new("RGB", (1000, 40)), flat, ("cat",)))[:, 101]
    assert (column == 0).all(1).sum() >= 15


def test_a_gallery_shows_every_scene_and_certain_detections() -> None:
    scene = Shown(torch.zeros(3, 64, 64, dtype=torch.uint8), TRUTH, FOUND)
    sheet = gallery([scene] * 5, ("cat", "dog"), side=128, score=0.3)
    assert sheet.shape == (3, 2 * 134 - 6, 4 * 134 - 6)
    for x, y in [(134 * column, 0) for column in range(4)] + [(0, 134)]:
        assert tuple(sheet[:, y + 65, x + 20]) == KNOWN_COLOR
        assert tuple(sheet[:, y + 65, x + 80]) == (0, 0, 0), "20 % is not certain"
    assert tuple(sheet[:, 134 + 65, 134 + 20]) == (40, 40, 40), "no scene here"
