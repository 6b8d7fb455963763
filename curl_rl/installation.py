"""The environments and presets: beside the package in a clone (``envs/``, ``configs/``), inside it in a wheel.

``curl_rl.envs`` is importable in both, so that a folder ``envs/`` of yours cannot hide it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

_PACKAGE = Path(__file__).resolve().parent
ROOT = _PACKAGE.parent
"""The clone; in a wheel, the folder of all installed packages."""
IS_CLONE = not (_PACKAGE / "configs").is_dir()
"""Whether this package is part of a clone of its repository, and not installed from a wheel."""
CONFIGS = (ROOT if IS_CLONE else _PACKAGE) / "configs"
"""The presets."""


def installation_of(extra: str) -> str:
    """The command that adds an optional part of this package, for a message: another in a clone than from a wheel."""
    return f"pip install -e '.[{extra}]' in curl_rl's clone" if IS_CLONE else f"pip install 'curl_rl[{extra}]'"


class _Finder(MetaPathFinder):
    """Finds ``curl_rl.envs`` in a clone; asked last, so only where the package itself has no such folder."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "curl_rl.envs" or not IS_CLONE:
            return None
        folder = ROOT / "envs"
        return spec_from_file_location(fullname, folder / "__init__.py", submodule_search_locations=[str(folder)])


def expose_envs() -> None:
    """Makes ``curl_rl.envs`` importable in a clone."""
    sys.meta_path.append(_Finder())
