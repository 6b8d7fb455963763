"""Tux Paint's stamps: photographs and drawings on transparent ground, each with a sentence that names it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from curl_rl.runs.errors import UserError
from curl_rl.text.data.split import part_of
from curl_rl.text.data.tables import CAPTIONS, captions_text, cell
from curl_rl.text.packages.found import Package, find
from curl_rl.text.packages.prepared import PreparedSet

STAMPS = Package("tuxpaint-stamps-default", "Debian", "GPL-2", "photographs and drawings with captions")
_FOLDER = "usr/share/tuxpaint/stamps"
_SIDE = 128
_TEST_SHARE = 0.2


def prepare_stamps(roots: Sequence[Path], into: PreparedSet, languages: Sequence[str]) -> None:
    """Writes the stamps that are pixels, scaled to transparent squares of 128 × 128 pixels; SVGs are left out.

    The class of a stamp is its folder. Stamps of the same caption are in the same part, training or test.

    Raises:
        UserError: the package is missing, or no stamp has a caption in one of the languages.
    """
    package = find(STAMPS, _FOLDER, roots)
    folder = package.path(_FOLDER)
    rows: dict[str, list[tuple[str, str]]] = {language: [] for language in languages}
    counts = {"train": 0, "test": 0, "without pixels": 0}
    for description in sorted(folder.rglob("*.txt")):
        captions = _captions(description)
        if captions.get("en", "") == "":
            continue
        pixels = description.with_suffix(".png")
        if not pixels.is_file():
            counts["without pixels"] += 1
            continue
        part = part_of(captions["en"].lower(), _TEST_SHARE)
        inner = description.relative_to(folder)
        file = f"{part}/{inner.parts[0]}/{'_'.join(inner.with_suffix('.png').parts[1:])}"
        into.write(file, _square(pixels))
        counts[part] += 1
        for language in languages:
            if captions.get(language):
                rows[language].append((file, captions[language]))
    for language, found in rows.items():
        if not found:
            raise UserError(f"the stamps have no captions in {language}: choose another --language, or en for none")
    for number, language in enumerate(languages):
        into.write(CAPTIONS if number == 0 else f"captions.{language}.tsv", captions_text(rows[language]))
    into.facts |= {"images": counts, "languages": list(languages)}
    into.describe([package], "stamps")


def _captions(path: Path) -> dict[str, str]:
    """The captions of a stamp by language: English in the first line, then lines such as ``de.utf8=Ein Apfel.``"""
    first, *others = path.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
    found = {"en": cell(first)}
    for line in others:
        language, separator, caption = line.partition(".utf8=")
        if separator:
            found[language.strip()] = cell(caption)
    return found


def _square(path: Path) -> bytes:
    """The picture as PNG: scaled to the square, its proportions kept, and centered."""
    with Image.open(path, formats=["PNG"]) as image:
        picture = image.convert("RGBA")
    scale = _SIDE / max(picture.size)
    picture = picture.resize([max(1, round(scale * side)) for side in picture.size], Image.Resampling.BILINEAR)
    square = Image.new("RGBA", (_SIDE, _SIDE))
    square.paste(picture, ((_SIDE - picture.width) // 2, (_SIDE - picture.height) // 2))
    buffer = io.BytesIO()
    square.save(buffer, format="PNG")
    return buffer.getvalue()
