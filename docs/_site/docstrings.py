"""Docstrings as the site shows them: Sphinx's roles, which Markdown does not know, become code."""

from __future__ import annotations

import re
from typing import Any

import griffe


class WithoutRoles(griffe.Extension):
    """``:func:`~curl_rl.losses.info_nce``` becomes ```info_nce```."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrites one docstring."""
        if obj.docstring is not None:
            shortened = re.sub(r":\w+:`~(?:\w+\.)*(\w+)`", r"`\1`", obj.docstring.value)
            obj.docstring.value = re.sub(r":\w+:`([^`]+)`", r"`\1`", shortened)
