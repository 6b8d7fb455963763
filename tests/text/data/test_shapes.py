"""Made pictures show what their captions say."""

from __future__ import annotations

import random

import numpy as np

from curl_rl.text.data import shapes


def test_colors_are_where_the_caption_says() -> None:
    rng = random.Random(3)
    for number in range(40):
        scene = shapes.draw_scene(rng, shapes.SHAPES[number % 4])
        pixels = np.asarray(shapes.picture(scene, rng)).astype(int)
        centers = []
        for color, _ in (scene.first, scene.second):
            rows, columns = (np.abs(pixels - shapes.COLORS[color]).sum(2) == 0).nonzero()
            assert len(rows) > 20, f"{color} is in the picture"
            centers.append(np.array([columns.mean(), rows.mean()]))
        right, down = centers[0] - centers[1]
        sideways, upright = "right of" if right > 0 else "left of", "below" if down > 0 else "above"
        assert scene.relation == (sideways if abs(right) > abs(down) else upright)


def test_both_captions_describe_the_same_scene() -> None:
    scene = shapes.Scene(("red", "circle"), "above", ("blue", "square"))
    assert scene.captions == ("a red circle above a blue square", "a blue square below a red circle")
