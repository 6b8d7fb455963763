"""Folders of cut-outs: shapes of one color, with transparency around them."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

SHAPES = ("bar", "cross", "disk", "frame")
_COLORS = {"bar": "red", "cross": "lime", "disk": "blue", "frame": "yellow"}


def make_cutouts(folder: Path, count: int = 5, classes: tuple[str, ...] = SHAPES) -> Path:
    """Writes ``count`` cut-outs of each class, of different sizes, each in the middle of a larger empty picture."""
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            side = 24 + 4 * number
            picture = Image.new("RGBA", (side + 10, side + 20))
            pen, color = ImageDraw.Draw(picture), _COLORS[name]
            box = (5, 10, 4 + side, 9 + side)
            if name == "bar":
                pen.rectangle((5, 10, 4 + side, 10 + side // 3), fill=color)
            elif name == "disk":
                pen.ellipse(box, fill=color)
            elif name == "frame":
                pen.rectangle(box, outline=color, width=4)
            else:
                pen.line((5, 10, 4 + side, 9 + side), fill=color, width=6)
                pen.line((4 + side, 10, 5, 9 + side), fill=color, width=6)
            picture.save(folder / name / f"{number}.png")
    return folder
