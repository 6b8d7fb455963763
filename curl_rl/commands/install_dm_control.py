"""Installs dm_control on Python 3.13 and newer, where pip alone cannot.

    python scripts/install_dm_control.py        (make setup runs it)

dm_control requires labmaze, which cannot be installed there: it has no wheel, and building it needs Bazel. Only
dm_control's mazes use it; the suite does not. pip can leave out all requirements of a package but not one of them, so
the other requirements, read from the metadata of dm_control's own wheel, are installed first, and dm_control then
without its requirements. On earlier versions of Python, pip has already installed dm_control with curl_rl.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from curl_rl.installation import IS_CLONE, ROOT
from curl_rl.runs.spelling import in_this_spelling

if TYPE_CHECKING:
    from packaging.requirements import Requirement

PIP_INSTALL = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")


def main(argv: Sequence[str]) -> int:
    """Installs dm_control if pip has left it out; returns the exit code, which is pip's if pip fails."""
    description = in_this_spelling(__doc__ or "")
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(argv)
    missing = [name for name in ("packaging", "pip") if importlib.util.find_spec(name) is None]
    if missing:
        parser.error(f"{sys.executable} must have curl_rl and pip installed, got no {' and no '.join(missing)}")
    dm_control, mujoco = declared("dm-control"), declared("mujoco")
    if dm_control.marker is None or dm_control.marker.evaluate():
        if importlib.util.find_spec("dm_control") is None:
            command = shlex.join([*PIP_INSTALL[:4], *(["-e", str(ROOT)] if IS_CLONE else ["curl_rl"])])
            print(f"on this Python, pip can install dm_control: {command}")
        return 0
    try:
        version, requirements = metadata(without_marker(dm_control))
        subprocess.run([*PIP_INSTALL, *without_labmaze(requirements), without_marker(mujoco)], check=True)
        # Last, because pip calls a later change to one of its requirements a conflict: labmaze is not installed.
        subprocess.run([*PIP_INSTALL, "--no-deps", f"dm-control=={version}"], check=True)
    except subprocess.CalledProcessError as error:
        return error.returncode
    return 0


def declared(name: str) -> Requirement:
    """The requirement called `name` in the metadata of the installed package."""
    from packaging.requirements import Requirement

    parsed = map(Requirement, importlib.metadata.requires("curl_rl") or [])
    return next(requirement for requirement in parsed if requirement.name == name)


def without_marker(requirement: Requirement) -> str:
    """Name and range of versions alone, for pip's command line."""
    return f"{requirement.name}{requirement.specifier}"


def metadata(wanted: str) -> tuple[str, list[str]]:
    """The newest version of the package `wanted` that pip can install, and the requirements in its metadata.

    Raises:
        subprocess.CalledProcessError: pip found none, and has printed why.
    """
    options = ["--no-deps", "--ignore-installed", "--dry-run", "--report", "-"]
    report = subprocess.run([*PIP_INSTALL, *options, wanted], check=True, stdout=subprocess.PIPE, text=True).stdout
    (package,) = json.loads(report)["install"]
    return package["metadata"]["version"], package["metadata"].get("requires_dist", [])


def without_labmaze(requirements: list[str]) -> list[str]:
    """The requirements that apply here without any extra, except labmaze."""
    from packaging.requirements import Requirement

    parsed = map(Requirement, requirements)
    applying = (each for each in parsed if each.marker is None or each.marker.evaluate({"extra": ""}))
    return [str(each) for each in applying if each.name != "labmaze"]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
