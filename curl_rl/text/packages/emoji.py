"""Emoji with their names: two artists' drawings of the same concepts, the captions from CLDR.

The tenth of the concepts that is held out for testing is the same for both artists, so that one can be trained on and
the other tested on.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, features

from curl_rl.text.data.split import part_of
from curl_rl.text.data.tables import CAPTIONS, captions_text
from curl_rl.text.packages.cldr import Emoji, find_cldr, read_emoji
from curl_rl.text.packages.found import Package, find
from curl_rl.text.packages.prepared import PreparedSet

NOTO = Package("fonts-noto-color-emoji", "Debian", "SIL Open Font License 1.1", "Noto's drawings of emoji")
_FONT = "usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
_BITMAP_SIZE = 109  # the only size that the font's bitmaps have; they are 136 × 128 pixels
_ADVANCE = 136  # of one glyph: a sequence that the font does not join is wider
_SIDE = 128
_UNASSIGNED = "\u0378"

EMOJIONE = Package("ruby-gemojione", "Debian", "CC BY-SA 4.0 (the pictures)", "EmojiOne's drawings of emoji")
_PICTURES = "usr/share/rubygems-integration/all/gems"


def prepare_noto(roots: Sequence[Path], into: PreparedSet, languages: Sequence[str]) -> None:
    """Writes Noto's emoji, 128 × 128 pixels with transparency, and their captions.

    Raises:
        UserError: a package is missing.
    """
    noto, cldr = find(NOTO, _FONT, roots), find_cldr(roots)
    font = ImageFont.truetype(noto.path(_FONT), _BITMAP_SIZE)
    joins = features.check("raqm")  # without this library Pillow draws the parts of a sequence side by side
    absent = _drawn(font, _UNASSIGNED)

    def picture(emoji: Emoji) -> bytes | None:
        if (len(emoji.text) > 1 and not joins) or font.getlength(emoji.text) > _ADVANCE:
            return None
        pixels = _drawn(font, emoji.text)
        if pixels.getbbox() is None or pixels.tobytes() == absent.tobytes():
            return None
        buffer = io.BytesIO()
        pixels.save(buffer, format="PNG")
        return buffer.getvalue()

    _write(into, read_emoji(cldr, languages), picture)
    into.describe([noto, cldr], "emoji")


def prepare_emojione(roots: Sequence[Path], into: PreparedSet, languages: Sequence[str]) -> None:
    """Writes EmojiOne's emoji, 64 × 64 pixels with transparency, and their captions.

    Raises:
        UserError: a package is missing.
    """
    emojione, cldr = find(EMOJIONE, _PICTURES, roots), find_cldr(roots)
    pictures = {
        path.stem.lower(): path for path in sorted(emojione.path(_PICTURES).glob("gemojione-*/assets/png/*.png"))
    }

    def picture(emoji: Emoji) -> bytes | None:
        # The files' names leave out the joiners of sequences.
        path = pictures.get(emoji.code) or pictures.get(emoji.code.replace("-200d", ""))
        return None if path is None else path.read_bytes()

    _write(into, read_emoji(cldr, languages), picture)
    into.describe([emojione, cldr], "emojione")


def _write(into: PreparedSet, emoji: Iterable[Emoji], picture: Callable[[Emoji], bytes | None]) -> None:
    """Writes the pictures of the emoji that have one, by part and group, and a table of captions per language."""
    rows: dict[str, list[tuple[str, str]]] = {}
    counts = {"train": 0, "test": 0}
    for one in emoji:
        content = picture(one)
        if content is None:
            continue
        part = part_of(one.code)
        file = f"{part}/{one.group}/{one.code}.png"
        into.write(file, content)
        counts[part] += 1
        for language, captions in one.captions.items():
            rows.setdefault(language, []).extend((file, caption) for caption in captions)
    for number, (language, table) in enumerate(rows.items()):
        into.write(CAPTIONS if number == 0 else f"captions.{language}.tsv", captions_text(table))
    into.facts |= {"images": counts, "languages": list(rows)}


def _drawn(font: ImageFont.FreeTypeFont, text: str) -> Image.Image:
    """A glyph, scaled to the width of the picture and centered on a transparent square."""
    drawn = Image.new("RGBA", (_ADVANCE, _ADVANCE))
    ImageDraw.Draw(drawn).text((0, 0), text, font=font, embedded_color=True)
    box = drawn.getbbox()
    if box is None:
        return Image.new("RGBA", (_SIDE, _SIDE))
    glyph = drawn.crop(box)
    if max(glyph.size) > _SIDE:
        scale = _SIDE / max(glyph.size)
        glyph = glyph.resize((round(glyph.width * scale), round(glyph.height * scale)), Image.Resampling.BILINEAR)
    square = Image.new("RGBA", (_SIDE, _SIDE))
    square.paste(glyph, ((_SIDE - glyph.width) // 2, (_SIDE - glyph.height) // 2))
    return square
