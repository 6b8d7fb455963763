#!/usr/bin/env python
"""Installs dm_control on Python 3.13 and newer, where pip alone cannot.

    .venv/bin/python scripts/install_dm_control.py        (make setup runs it)

dm_control requires labmaze, which cannot be installed there: it has no wheel, and building it needs Bazel. Only
dm_control's mazes use it; the suite does not. pip can leave out all requirements of a package but not one of them, so
the other requirements, read from the metadata of dm_control's own wheel, are installed first, and dm_control then
without its requirements. Where labmaze can be installed, pip has already installed both with curl_rl.
"""

from __future__ import annotations

import argparse
import configparser
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PIP_INSTALL = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")


def main(argv: list[str]) -> int:
    """Installs what is missing; returns the exit code, which is pip's if pip fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(argv)
    dm_control, mujoco = declared("dm-control"), declared("mujoco")
    if dm_control.marker is None or dm_control.marker.evaluate():
        if importlib.util.find_spec("dm_control") is None:
            print(f"pip can install dm_control on this Python: {sys.executable} -m pip install -e {ROOT}")
        return 0
    if importlib.util.find_spec("pip") is None:
        parser.error(f"{sys.executable} must have pip, found none; in uv's environment `uv sync` installs dm_control")
    try:
        version, requirements = metadata(without_marker(dm_control))
        others = [str(requirement) for requirement in requirements if applies_without_labmaze(requirement)]
        subprocess.run([*PIP_INSTALL, *others, without_marker(mujoco)], check=True)
        # Last, because pip reports every later change to its requirements as a conflict over labmaze.
        subprocess.run([*PIP_INSTALL, "--no-deps", f"dm-control=={version}"], check=True)
    except subprocess.CalledProcessError as error:
        return error.returncode
    return 0


def declared(name: str) -> Requirement:
    """The requirement called `name` in setup.cfg."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    lines = settings["options"]["install_requires"].split("\n")
    (found,) = (line for line in lines if line.startswith(name))
    return Requirement(found)


def without_marker(requirement: Requirement) -> str:
    """Name and range of versions alone, for pip's command line."""
    return f"{requirement.name}{requirement.specifier}"


def metadata(wanted: str) -> tuple[str, list[Requirement]]:
    """The newest version of the package `wanted` that pip can install, and the requirements that its wheel lists.

    Raises:
        subprocess.CalledProcessError: pip found none, and has printed why.
    """
    options = ["--no-deps", "--ignore-installed", "--dry-run", "--report", "-"]
    report = subprocess.run([*PIP_INSTALL, *options, wanted], check=True, stdout=subprocess.PIPE, text=True).stdout
    (package,) = json.loads(report)["install"]
    about = package["metadata"]
    return about["version"], [Requirement(line) for line in about["requires_dist"]]


def applies_without_labmaze(requirement: Requirement) -> bool:
    """Whether a requirement of dm_control is to be installed: it is not an extra's, and not labmaze."""
    applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    return applies and canonicalize_name(requirement.name) != "labmaze"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
