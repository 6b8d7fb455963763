"""Writes a prepared data set: a whole folder or none, with the licenses and the origin of what is in it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from curl_rl.runs.errors import UserError
from curl_rl.runs.files import PARTIAL, sync_directory
from curl_rl.text.packages.found import Found

LICENSE, PROVENANCE = "LICENSE.txt", "provenance.json"


@dataclass
class PreparedSet:
    """A data set that is being written."""

    folder: Path
    """The folder to write to, which is renamed when the set is complete."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Counts and choices, for the file of its origin."""
    _lines: list[str] = field(default_factory=list)

    def write(self, name: str, content: str | bytes) -> None:
        """Writes a file of the set, and its folders."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    def describe(self, packages: Sequence[Found], name: str) -> None:
        """Writes the licenses of the packages, and where each file comes from."""
        texts = [
            f"{found.package.holds}: {found.package.name} {found.version} ({found.package.registry}), "
            f"{found.package.license}\n\n{found.license_text().strip()}\n"
            for found in packages
        ]
        self.write(LICENSE, ("\n" + "=" * 100 + "\n\n").join(texts) if texts else "Made by curl_rl: public domain.\n")
        origins = [
            {
                "package": found.package.name,
                "version": found.version,
                "registry": found.package.registry,
                "license": found.package.license,
                "holds": found.package.holds,
            }
            for found in packages
        ]
        tables = sorted(path for path in self.folder.iterdir() if path.suffix in (".tsv", ".txt"))
        digests = {path.name: sha256(path.read_bytes()).hexdigest() for path in tables}
        self.write(
            PROVENANCE,
            json.dumps(
                {"set": name, "packages": origins, **self.facts, "sha256": digests}, indent=2, ensure_ascii=False
            )
            + "\n",
        )


@contextlib.contextmanager
def prepared_set(folder: Path) -> Iterator[PreparedSet]:
    """A new folder that appears under its name only when it is complete.

    Raises:
        UserError: there is something of that name.
        OSError: it cannot be written.
    """
    folder = folder.absolute()
    if folder.is_symlink() or (folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))):
        raise UserError(
            f"--to {folder} must be a new folder, and there is something already: name another or remove it"
        )
    temporary = folder.with_name(folder.name + PARTIAL)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if temporary.exists():
        shutil.rmtree(temporary)
    temporary.mkdir()
    try:
        yield PreparedSet(temporary)
        os.replace(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_directory(folder.parent)
