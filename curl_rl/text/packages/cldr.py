"""Names, keywords and groups of emoji from Unicode's Common Locale Data Repository (CLDR)."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from curl_rl.runs.errors import UserError
from curl_rl.text.packages.found import Found, Package, find

CLDR = Package("unicode-cldr-core", "Debian", "Unicode License (Unicode-DFS-2016)", "names and keywords of emoji")
_COMMON = "usr/share/unicode/cldr/common"
# Base emoji, then sequences: flags, people of a profession. Their order is that of emoji pickers.
_FILES = ("annotations", "annotationsDerived")
_SKIN_TONES = re.compile("[\U0001f3fb-\U0001f3ff]")
_PRESENTATION = "\ufe0f"  # variation selector 16, which CLDR's names of sequences leave out


class Emoji(NamedTuple):
    """One emoji, without skin tones."""

    text: str
    """Its characters."""
    group: str
    """Its group in emoji pickers, such as ``food and drink``."""
    captions: dict[str, tuple[str, ...]]
    """By language: its name, its keywords in one line, and each keyword that is not the name."""

    @property
    def code(self) -> str:
        """Its code points in hexadecimal, joined by dashes; the same in every set."""
        return "-".join(f"{ord(character):04x}" for character in self.text if character != _PRESENTATION)


def find_cldr(roots: Sequence[Path]) -> Found:
    """Finds the package.

    Raises:
        UserError: no root holds it.
    """
    return find(CLDR, f"{_COMMON}/annotations", roots)


def read_emoji(cldr: Found, languages: Sequence[str]) -> list[Emoji]:
    """Reads the emoji that have a name in every language, and a group.

    Emoji newer than CLDR's list of groups get that of their neighbors in the order of emoji pickers, if both are of the
    same group; the rest are left out.

    Raises:
        UserError: a language has no annotations.
    """
    common = cldr.path(_COMMON)
    groups = _groups(common / "properties" / "labels.txt")
    found = []
    for name in _FILES:
        by_language = [_annotations(common / name, language) for language in languages]
        texts = [text for text in by_language[0] if not _SKIN_TONES.search(text)]
        for text, group in zip(texts, _filled([groups.get(text) for text in texts]), strict=True):
            if group is not None and all(text in one for one in by_language):
                captions = {language: one[text] for language, one in zip(languages, by_language, strict=True)}
                found.append(Emoji(text, group, captions))
    return found


def _annotations(folder: Path, language: str) -> dict[str, tuple[str, ...]]:
    """The captions of each emoji in one file, in its order; emoji without a name are left out."""
    path = folder / f"{language}.xml"
    if not re.fullmatch(r"\w+", language) or not path.is_file():
        known = ", ".join(sorted(path.stem for path in folder.glob("*.xml")))
        raise UserError(f"language must be one that {folder} has, got {language}: {known}")
    names: dict[str, str] = {}
    keywords: dict[str, list[str]] = {}
    for node in ET.parse(path).iter("annotation"):
        text, content = node.get("cp") or "", node.text or ""
        if node.get("type") == "tts":
            names[text] = content.strip()
        else:
            keywords[text] = [word.strip() for word in content.split("|")]
    return {text: _captions(name, keywords.get(text, [])) for text, name in names.items() if name not in ("", "↑↑↑")}


def _captions(name: str, keywords: list[str]) -> tuple[str, ...]:
    others = [word for word in dict.fromkeys(keywords) if word not in ("", name, "↑↑↑")]
    return tuple(dict.fromkeys([name, ", ".join(others), *others])) if others else (name,)


def _groups(path: Path) -> dict[str, str]:
    """The group of each emoji, from a file of lines such as ``[😀-😆{👨‍🌾}] ; Smileys & People ; face-positive``."""
    groups: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("[") and ";" in line:
            characters, label = (field.strip() for field in line.split(";")[:2])
            group = label.lower().replace("&", "and")
            groups |= dict.fromkeys(_members(characters), group)
    return groups


def _members(characters: str) -> list[str]:
    """The members of a set in Unicode's notation, of characters, ranges and sequences in braces."""
    inner = characters[1:-1].replace(_PRESENTATION, "")
    members = re.findall(r"\{(.*?)\}", inner)
    singles = re.sub(r"\{.*?\}|\\", "", inner)
    for first, last in re.findall(r"(.)(?:-(.))?", singles):
        members += map(chr, range(ord(first), ord(last or first) + 1))
    return members


def _filled(groups: list[str | None]) -> list[str | None]:
    """Gives each emoji without a group that of the nearest ones before and after it, if they agree."""
    before: list[str | None] = []
    for group in groups:
        before.append(group or (before[-1] if before else None))
    after: list[str | None] = []
    for group in reversed(groups):
        after.append(group or (after[-1] if after else None))
    return [first if first == last else None for first, last in zip(before, reversed(after), strict=True)]
