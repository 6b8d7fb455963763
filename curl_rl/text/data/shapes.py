"""Made pictures: two colored shapes, and captions that say what is where. Everything depends on a seed alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

from PIL import Image, ImageDraw

from curl_rl.text.data.split import Part, part_of

COLORS = {
    "red": (214, 39, 40),
    "green": (44, 160, 44),
    "blue": (31, 119, 180),
    "yellow": (240, 200, 20),
    "purple": (148, 103, 189),
    "orange": (255, 127, 14),
}
SHAPES = ("circle", "square", "triangle", "cross")
RELATIONS = {"above": (0, -1), "below": (0, 1), "left of": (-1, 0), "right of": (1, 0)}
_OPPOSITE = {"above": "below", "below": "above", "left of": "right of", "right of": "left of"}
SIDE = 32
"""Side of a picture, in pixels."""
_TEST_SHARE = 0.2


class Scene(NamedTuple):
    """Two colored shapes, one of which is somewhere relative to the other."""

    first: tuple[str, str]
    """Color and shape."""
    relation: str
    second: tuple[str, str]

    @property
    def captions(self) -> tuple[str, str]:
        """The scene described from either shape."""
        first, second = (f"a {color} {shape}" for color, shape in (self.first, self.second))
        return f"{first} {self.relation} {second}", f"{second} {_OPPOSITE[self.relation]} {first}"

    @property
    def part(self) -> Part:
        """For training or for testing, which a fifth of the scenes are for: the same however it is described."""
        return part_of(min(self.captions), _TEST_SHARE)


def scenes(count: int, seed: int) -> Iterator[tuple[Scene, Image.Image]]:
    """Scenes and their pictures, of 32 × 32 pixels. Each shape in turn is the one named first."""
    rng = random.Random(seed)
    for number in range(count):
        scene = draw_scene(rng, SHAPES[number % len(SHAPES)])
        yield scene, picture(scene, rng)


def draw_scene(rng: random.Random, shape: str) -> Scene:
    """Draws a scene whose first shape is ``shape``; its shapes differ in form and color."""
    one, other = rng.sample(list(COLORS), 2)
    return Scene((one, shape), rng.choice(list(RELATIONS)), (other, rng.choice([s for s in SHAPES if s != shape])))


def picture(scene: Scene, rng: random.Random) -> Image.Image:
    """Paints a scene on a light ground, its places and sizes a little different every time."""
    image = Image.new("RGB", (SIDE, SIDE), tuple(rng.randrange(235, 256) for _ in range(3)))
    draw = ImageDraw.Draw(image)
    right, down = RELATIONS[scene.relation]
    for (color, shape), side in ((scene.first, 1), (scene.second, -1)):
        x = SIDE / 2 + side * right * 8 + rng.uniform(-2, 2)
        y = SIDE / 2 + side * down * 8 + rng.uniform(-2, 2)
        _paint(draw, shape, x, y, rng.uniform(4.5, 6.5), COLORS[color])
    return image


def _paint(draw: ImageDraw.ImageDraw, shape: str, x: float, y: float, r: float, color: tuple[int, int, int]) -> None:
    if shape == "circle":
        draw.ellipse((x - r, y - r, x + r, y + r), fill=color)
    elif shape == "square":
        draw.rectangle((x - r, y - r, x + r, y + r), fill=color)
    elif shape == "triangle":
        draw.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=color)
    else:
        draw.rectangle((x - r / 3, y - r, x + r / 3, y + r), fill=color)
        draw.rectangle((x - r, y - r / 3, x + r, y + r / 3), fill=color)
