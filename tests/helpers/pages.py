"""The Python programs on the pages of docs/."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[2] / "docs"


def blocks(page: str) -> list[str]:
    """The page's Python blocks, each preceded by empty lines so that tracebacks give line numbers of the page."""
    text = (DOCS / page).read_text()
    found = re.finditer(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return ["\n" * text.count("\n", 0, match.start(1)) + match[1] for match in found]


def run(block: str, page: str, namespace: dict[str, Any]) -> None:
    exec(compile(block, str(DOCS / page), "exec", dont_inherit=True), namespace)
