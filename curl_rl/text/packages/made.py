"""Made data for tests and first tries: colored shapes with captions, and sentences of a small grammar.

Everything depends on a seed alone. Nothing is like the world; both are small enough to learn in minutes.
"""

from __future__ import annotations

import io
import random
from typing import NamedTuple

from PIL import Image, ImageDraw

from curl_rl.text.data.tables import CAPTIONS, SCORED, ScoredPair, captions_text, scored_text
from curl_rl.text.packages.prepared import PreparedSet
from curl_rl.text.packages.split import part_of

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
_SIDE = 32
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


def prepare_shapes(into: PreparedSet, *, count: int = 400, seed: int = 0) -> None:
    """Writes ``count`` pictures of 32 × 32 pixels, with two captions each; the class is the shape that is named first.

    A fifth of the scenes are for testing: combinations of which no picture is trained on.
    """
    rng = random.Random(seed)
    rows, counts = [], {"train": 0, "test": 0}
    for number in range(count):
        # Each shape in turn is the one named first, so that every class has pictures.
        scene = draw_scene(rng, SHAPES[number % len(SHAPES)])
        part = part_of(min(scene.captions), _TEST_SHARE)
        file = f"{part}/{scene.first[1]}/{number:05}.png"
        into.write(file, _png(picture(scene, rng)))
        rows += [(file, caption) for caption in scene.captions]
        counts[part] += 1
    into.write(CAPTIONS, captions_text(rows))
    into.facts |= {"images": counts, "seed": seed}
    into.describe([], "shapes")


def draw_scene(rng: random.Random, shape: str) -> Scene:
    """Draws a scene whose first shape is ``shape``; its shapes differ in form and color."""
    one, other = rng.sample(list(COLORS), 2)
    return Scene((one, shape), rng.choice(list(RELATIONS)), (other, rng.choice([s for s in SHAPES if s != shape])))


def picture(scene: Scene, rng: random.Random) -> Image.Image:
    """Paints a scene on a light ground, its places and sizes a little different every time."""
    image = Image.new("RGB", (_SIDE, _SIDE), tuple(rng.randrange(235, 256) for _ in range(3)))
    draw = ImageDraw.Draw(image)
    right, down = RELATIONS[scene.relation]
    for (color, shape), side in ((scene.first, 1), (scene.second, -1)):
        x = _SIDE / 2 + side * right * 8 + rng.uniform(-2, 2)
        y = _SIDE / 2 + side * down * 8 + rng.uniform(-2, 2)
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


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


# ---- sentences

# Words of one meaning in each tuple; each list a slot of the sentence.
_SLOTS: tuple[tuple[tuple[str, ...], ...], ...] = (
    (("small", "little"), ("big", "large"), ("quick", "fast"), ("old", "aged")),
    (("dog", "hound"), ("cat", "kitten"), ("boy", "lad"), ("girl", "lass"), ("horse", "pony")),
    (("sees", "spots"), ("finds", "discovers"), ("likes", "loves"), ("carries", "bears")),
    (("red", "scarlet"), ("blue", "azure"), ("green", "emerald")),
    (("stone", "rock"), ("house", "home"), ("boat", "ship"), ("road", "street")),
)
_OPPOSITES = {"small": "big", "big": "small", "quick": "slow", "old": "young"}


def prepare_grammar(into: PreparedSet, *, count: int = 1000, seed: int = 0) -> None:
    """Writes sentences such as ``the small dog sees the red stone``, triples and judged pairs.

    A positive has synonyms in place of some words; a hard negative has the opposite adjective. The score of a pair is
    the number of slots, of 5, that mean the same.
    """
    rng = random.Random(seed)
    meanings = [tuple(rng.randrange(len(slot)) for slot in _SLOTS) for _ in range(count)]
    into.write("sentences.txt", "".join(f"{_sentence(meaning, rng)}\n" for meaning in meanings))
    triples = []
    for meaning in meanings:
        sentence = _sentence(meaning)
        adjective = _SLOTS[0][meaning[0]][0]
        negative = sentence.replace(adjective, _OPPOSITES[adjective], 1)
        triples.append("\t".join((sentence, _sentence(meaning, rng, differently=True), negative)))
    into.write("triples.tsv", "".join(f"{line}\n" for line in triples))
    pairs = []
    for _ in range(count // 4):
        first = rng.choice(meanings)
        share = rng.random()
        shared = [rng.random() < share for _ in _SLOTS]
        second = tuple(
            own if same else rng.randrange(len(slot)) for own, same, slot in zip(first, shared, _SLOTS, strict=True)
        )
        score = sum(one == other for one, other in zip(first, second, strict=True))
        pairs.append(ScoredPair(score, _sentence(first, rng), _sentence(second, rng)))
    into.write(SCORED, scored_text(pairs))
    into.facts |= {"sentences": count, "triples": len(triples), "pairs": len(pairs), "seed": seed}
    into.describe([], "grammar")


def _sentence(meaning: tuple[int, ...], rng: random.Random | None = None, *, differently: bool = False) -> str:
    """A sentence of that meaning: of the first words, of random ones, or ``differently`` of at least one other."""
    choices = [0] * len(_SLOTS) if rng is None else [rng.randrange(2) for _ in _SLOTS]
    if differently and rng is not None and not any(choices):
        choices[rng.randrange(len(_SLOTS))] = 1
    adjective, subject, verb, color, thing = (
        slot[place][choice] for slot, place, choice in zip(_SLOTS, meaning, choices, strict=True)
    )
    return f"the {adjective} {subject} {verb} the {color} {thing}"
