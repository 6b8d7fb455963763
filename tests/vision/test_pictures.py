"""The picture of views, pixel by pixel on two single-color images."""

from __future__ import annotations

import torch

from curl_rl.vision.pictures import views_picture


def test_one_row_per_image_with_its_views_next_to_it() -> None:
    images = torch.stack([torch.full((3, 4, 4), value, dtype=torch.uint8) for value in (10, 20, 30)])
    large = torch.stack([torch.full((3, 4, 4), value) for value in (0.2, 0.4, 0.6)])
    small = torch.stack([torch.full((3, 2, 2), value) for value in (1.0, 0.0, 1.0)])
    picture = views_picture(images, [large, small], samples=2)
    assert picture.dtype == torch.uint8
    assert picture.shape == (3, 2 * (4 + 2), (4 + 2) + (4 + 2) + (2 + 2))
    assert (picture[:, 0:4, 0:4] == 10).all()
    assert (picture[:, 0:4, 6:10] == 51).all()
    assert (picture[:, 0:2, 12:14] == 255).all()
    assert (picture[:, 2:6, 12:14] == 0).all()
    assert (picture[:, 6:10, 0:4] == 20).all()
    assert (picture[:, 6:10, 6:10] == 102).all()


def test_a_stack_is_shown_by_its_newest_frame() -> None:
    images = torch.cat([torch.full((1, 3, 2, 2), value, dtype=torch.uint8) for value in (10, 20, 30)], 1)
    picture = views_picture(images, [images / 255], samples=1)
    assert picture.shape == (3, 4, 8)
    assert (picture[:, 0:2, 0:2] == 30).all()
    assert (picture[:, 0:2, 4:6] == 30).all()
