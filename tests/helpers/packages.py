"""Small packages in the form of the real ones, unpacked."""

from __future__ import annotations

import bz2
import gzip
from pathlib import Path

import numpy as np
from PIL import Image

DOC, CLDR = "usr/share/doc", "usr/share/unicode/cldr/common"
WORDNET = "usr/share/wordnet"
GENSIM = "gensim/test/test_data"
DUMP = "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"

LABELS = """\
# labels.txt
[🍇-🍉{👨‍🍳}] ; Food & Drink ; fruit
[🐵] ; Animals & Nature ; monkey
[A-C] ; Symbols ; alphanum
"""

ANNOTATIONS = {
    "en": [
        ("🍇", "fruit | grape | grapes", "grapes"),
        ("🍈", "fruit | melon", "melon"),
        ("🍉", "fruit", "watermelon"),
        ("🐵", "face | monkey", "monkey face"),
        ("A", "letter | vowel", "letter A"),
        ("Z", "letter", "letter Z"),
        ("C", "letter", "letter C"),
    ],
    "es": [
        ("🍇", "fruta | uva", "uvas"),
        ("A", "letra", "letra A"),
        ("Z", "letra", "letra Z"),
        ("C", "letra", "letra C"),
    ],
}


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def debian(root: Path, name: str) -> Path:
    """What every package of Debian has: a license and a changelog."""
    write(root / DOC / name / "copyright", f"License of {name}: everything\n")
    write(root / DOC / name / "changelog.Debian.gz", gzip.compress(f"{name} (1.2-3) unstable; urgency=low\n".encode()))
    return root


def cldr(root: Path) -> Path:
    for language, rows in ANNOTATIONS.items():
        lines = "".join(
            f'<annotation cp="{text}">{keywords}</annotation><annotation cp="{text}" type="tts">{name}</annotation>\n'
            for text, keywords, name in rows
        )
        page = f"<ldml><annotations>\n{lines}</annotations></ldml>"
        write(root / CLDR / "annotations" / f"{language}.xml", page)
        empty = '<ldml><annotations><annotation cp="A🏽" type="tts">letter A: skin</annotation></annotations></ldml>'
        write(root / CLDR / "annotationsDerived" / f"{language}.xml", empty)
    write(root / CLDR / "properties" / "labels.txt", LABELS)
    return debian(root, "unicode-cldr-core")


def emojione(root: Path, *codes: str) -> Path:
    folder = root / "usr/share/rubygems-integration/all/gems/gemojione-3.3.0/assets/png"
    folder.mkdir(parents=True)
    for number, code in enumerate(codes):
        Image.new("RGBA", (64, 64), (number, 0, 0, 255)).save(folder / f"{code}.png")
    return debian(root, "ruby-gemojione")


def stamps(root: Path) -> Path:
    folder = root / "usr/share/tuxpaint/stamps"
    pictures = {"food/fruit/apple": (8, 4), "animals/cat": (3, 3), "animals/drawn": None, "animals/unnamed": (2, 2)}
    captions = {
        "food/fruit/apple": "An apple.\nes.utf8=Una manzana.\n",
        "animals/cat": "A  cat.\r\nde.utf8=Eine Katze.\n",
    }
    for name, size in pictures.items():
        write(folder / f"{name}.txt", captions.get(name, "" if name.endswith("unnamed") else "Something."))
        if size:
            pixels = np.full((size[1], size[0], 4), 255, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{name}.png")
    return debian(root, "tuxpaint-stamps-default")


def wordnet(root: Path) -> Path:
    """Two opposite adjectives, a noun with a synonym, and the license that begins each file."""
    license_text = "  1 This software and database is being provided to you, the LICENSEE, by\n"
    adjectives = [
        "00000001 00 a 02 able 0 capable(p) 0 001 ! 00000002 a 0101 "
        '| having the means; "she was able to swim"; "unusable"',
        '00000002 00 a 02 unable 0 incapable 0 001 ! 00000001 a 0101 | not having the means; "an unable person"',
    ]
    nouns = ['00000003 05 n 02 dog 0 domestic_dog 0 000 | a member of the genus Canis; "the dog barked all night"']
    for name, lines in {"adj": adjectives, "noun": nouns, "verb": [], "adv": []}.items():
        write(root / WORDNET / f"data.{name}", license_text + "".join(f"{line}  \n" for line in lines))
    indices = {
        "adj": ["able a 1 1 ! 1 1 00000001", "unable a 1 1 ! 1 0 00000002", "dog a 1 0 1 0 00000002"],
        "noun": ["dog n 1 0 1 1 00000003", "domestic_dog n 1 0 1 0 00000003"],
    }
    for name in ("adj", "noun", "verb", "adv"):
        write(root / WORDNET / f"index.{name}", license_text + "".join(f"{line}  \n" for line in indices.get(name, [])))
    write(root / WORDNET / "cntlist.rev", "able%3:00:00:: 1 9\ndog%1:05:00:: 1 4\n")
    return debian(root, "wordnet-base")


PAGE = """<page><title>{title}</title><ns>{ns}</ns><revision><text>{text}</text></revision></page>"""


def gensim(root: Path) -> Path:
    """Three texts judged in pairs, words, an article and a page that is none."""
    folder = root / GENSIM
    write(folder / "lee.cor", "First text here.\nSecond text.\nThird.\n")
    write(folder / "lee_background.cor", "A sentence. Another one by Mr. Smith. A sentence.\n")
    write(folder / "similarities0-1.txt", "1\t0.25\t0.5\n0\t1\t0.75\n0\t0\t1\n")
    write(folder / "simlex999.txt", "# a remark\nable\tdog\t1.5\nDog\tdog\t10\nable\tunknown\t3\n")
    write(folder / "wordsim353.tsv", "# a remark\nlove\tsex\t6.77\n")
    article = (
        "'''Anarchism''' is a [[philosophy|political philosophy]] of many people.{{sfn|a{{b}}}} It "
        "has a &lt;ref&gt;x&lt;/ref&gt;history."
    )
    pages = [
        ("Anarchism", "0", article),
        ("Talk:Anarchism", "1", "This is talk about the page."),
        ("B", "0", "#REDIRECT [[A]]"),
    ]
    dump = "".join(PAGE.format(title=title, ns=ns, text=text) for title, ns, text in pages)
    write(folder / DUMP, bz2.compress(f'<mediawiki xmlns="http://x/">{dump}</mediawiki>'.encode()))
    write(root / "gensim-4.4.0.dist-info" / "licenses" / "COPYING", "Lesser General Public License\n")
    return root
