"""Puts the environments and presets, which lie beside the package in a clone, inside it in a wheel.

As ``curl_rl/envs`` and ``curl_rl/configs``: a package called ``envs`` has no place in anybody's site-packages.
Everything else is in setup.cfg and pyproject.toml.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


class BuildWhole(build_py):
    """Builds the package with the two folders."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for path in beside():
            target = Path(self.build_lib, "curl_rl", path.relative_to(ROOT))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def beside() -> list[Path]:
    """The files of both folders."""
    return [*sorted((ROOT / "envs").rglob("*.py")), *sorted((ROOT / "configs").rglob("*.yaml"))]


setup(cmdclass={"build_py": BuildWhole})
