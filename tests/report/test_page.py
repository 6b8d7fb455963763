"""Pages are one file: well formed, with nothing from elsewhere, and with every text as text."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser

import numpy as np
import torch
from PIL import Image

from curl_rl.report.page import Section, figure, page, png

VOID = {"meta", "img"}


class Reader(HTMLParser):
    """Collects texts and attributes, and checks that every element is closed."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.feed(content)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_texts_from_files_stay_texts() -> None:
    nasty = '<script src="http://example.org/x.js">&"\'</script>'
    section = Section(nasty)
    section.text(nasty)
    section.note(nasty)
    section.heading(nasty)
    section.heading(nasty, small=True)
    section.box("fault", nasty, [nasty])
    section.table([[nasty], [nasty]], numbers=True)
    section.folded(nasty, nasty)
    section.figure(figure(b"", "png", nasty))
    read = Reader(page(nasty, [section, Section(nasty)]))
    assert [text for text in read.texts if "script" in text] == [nasty] * 17
    assert {tag for tag, _, _ in read.attributes}.isdisjoint({"script", "link", "iframe", "object"})
    assert ("img", "alt", nasty) in read.attributes
    links = [value for _, name, value in read.attributes if name in ("src", "href")]
    assert all(value.startswith(("data:image/", "#")) for value in links)


def test_a_picture_is_in_the_page_pixel_by_pixel() -> None:
    pixels = torch.arange(2 * 3 * 3, dtype=torch.uint8).view(3, 2, 3)
    (source,) = [
        value
        for tag, name, value in Reader(figure(png(pixels), "png", "x")).attributes
        if (tag, name) == ("img", "src")
    ]
    kind, _, data = source.partition(";base64,")
    assert kind == "data:image/png"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert np.array_equal(np.asarray(image), pixels.permute(1, 2, 0).numpy())


def test_a_page_links_to_its_sections() -> None:
    read = Reader(page("both", [Section("one"), Section("two")]))
    names = [value for tag, name, value in read.attributes if (tag, name) == ("section", "id")]
    assert [value for tag, name, value in read.attributes if (tag, name) == ("a", "href")] == [
        f"#{one}" for one in names
    ]
    assert len(set(names)) == 2
    assert not any(tag == "a" for tag, _, _ in Reader(page("one", [Section("one")])).attributes)
