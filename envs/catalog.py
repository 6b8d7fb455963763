"""Finds environments in gymnasium's registry, and suggests names for those that are not there.

An id may begin with the module that registers it, as in `gymnasium.make`: `my_module:MyEnv-v0`. The module may lie in
the current folder, which is not on Python's path if a script of another folder was started.
"""

import contextlib
import difflib
import importlib
import importlib.machinery
import importlib.util
import os
import re
import sys
import traceback
from importlib.machinery import ModuleSpec
from pathlib import Path

import gymnasium
from gymnasium.envs.registration import EnvSpec, parse_env_id

from . import rendering

_OURS = "pixels/"  # the namespace of this package's environments in gymnasium's registry
_MOST_LISTED = 5


def find(gym_id: str) -> EnvSpec:
    """The registered environment, after importing the module that the id names, if any.

    Args:
        gym_id: `Pendulum-v1`, `my_module:MyEnv-v0` or `my_package.my_module:space/MyEnv-v0`.

    Raises:
        ValueError: the module cannot be imported, or registers no such environment; the message suggests another id.
    """
    module, _, registered = gym_id.rpartition(":")
    try:
        if module:
            _import(module)
        parse_env_id(registered)
    except (ImportError, gymnasium.error.Error) as error:
        raise ValueError(f"environment gym:{gym_id} cannot be created: {_one_line(error)}") from error
    try:
        return gymnasium.spec(registered)
    except gymnasium.error.Error as error:
        reason = _one_line(error).rstrip(".")
        hint = _what_it_registers(module, registered) if module else _other_id(registered)
        raise ValueError(f"environment gym:{gym_id} cannot be created: {reason}; {hint}") from error


def nearest(name: str) -> str:
    """The name, as `envs.make` takes it, of the most similar environment: one of this package's, or `gym:<id>`."""
    name = re.sub("^gym:", "", name, flags=re.IGNORECASE)
    # Sorted by version, so that the newest replaces older ones.
    ids = sorted(gymnasium.registry, key=lambda gym_id: int(_version(gym_id) or -1))
    ours = [gym_id.removeprefix(_OURS).removesuffix("-v0") for gym_id in ids if gym_id.startswith(_OURS)]
    foreign = {gym_id.removesuffix(f"-v{_version(gym_id)}"): gym_id for gym_id in ids if not gym_id.startswith(_OURS)}
    if ":" in name or (name in gymnasium.registry and not name.startswith(_OURS)):
        return f"gym:{name}"
    if name in foreign:
        return f"gym:{foreign[name]}"
    begins = [own for own in ours if name and _stem(own).startswith(_stem(name))]
    if begins:
        return begins[0]
    known = {_stem(plain): f"gym:{gym_id}" for plain, gym_id in foreign.items()} | {
        _stem(known): known for known in ours
    }
    return known[difflib.get_close_matches(_stem(name), known, n=1, cutoff=0.0)[0]]


def _import(module: str) -> None:
    """Imports a module of Python's path or, failing that, of the current folder.

    Raises:
        ImportError: it does not exist, or fails when it is imported; the message is one line.
    """
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", module):
        dotted = ".".join(re.findall(r"[^\W\d]\w*", module.removesuffix(".py"))) or "my_module"
        raise ImportError(f"{module!r} is not the name of a module: write gym:{dotted}:<id>")
    first = module.partition(".")[0]
    installed = first in sys.modules or _is_file(importlib.util.find_spec(first))
    here = os.getcwd()
    if not installed and _is_file(importlib.machinery.PathFinder.find_spec(first, [here])):
        # At the end, so that no file there replaces a module of Python or of an installed package. It stays, because
        # the environment may be imported later than the module that registers it.
        sys.path.append(here)
    if module not in sys.modules:
        # It may import dm_control, which chooses its backend on import. One that draws without OpenGL needs none.
        with contextlib.suppress(rendering.RenderingUnavailable):
            rendering.choose_backend()
    try:
        importlib.import_module(module)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            raise ImportError(_where_it_was_sought(module)) from error
        raise ImportError(f"importing {module} raised {told(error)}") from error


def _is_file(spec: ModuleSpec | None) -> bool:
    """Tests whether a module was found; any folder of its name, without an `__init__.py`, does not count."""
    return spec is not None and spec.origin is not None


def told(error: BaseException) -> str:
    """An exception's type, message and place, in one line."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    message, place = _one_line(error), f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else "unknown place"
    if isinstance(error, SyntaxError):
        message, place = error.msg, f"{error.filename}, line {error.lineno}"
    return f"{type(error).__name__}{message and ': '}{message} ({place})"


def _where_it_was_sought(module: str) -> str:
    files = [path.stem for path in Path.cwd().iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    similar = difflib.get_close_matches(module, files, n=1)
    remedy = f"did you mean {similar[0]}?" if similar else "start from its folder, or install it"
    return f"no module {module} is installed or in the current folder, {Path.cwd()}: {remedy}"


def _other_id(registered: str) -> str:
    similar = nearest(registered)
    if _stem(similar.removeprefix("gym:")) == _stem(registered):
        return f"did you mean {similar}?"
    return f"if a module of yours or of a package registers it, name the module: gym:<module>:{registered}"


def _what_it_registers(module: str, registered: str) -> str:
    package = module.partition(".")[0]
    known = [gym_id for gym_id, spec in gymnasium.registry.items() if _module_of(spec).partition(".")[0] == package]
    if not known:
        file = getattr(sys.modules[module], "__file__", None) or "built in"
        return f"the module {module} ({file}) registers nothing with gymnasium.register"
    similar = difflib.get_close_matches(registered, known, n=_MOST_LISTED, cutoff=0.0)
    more = f" and {len(known) - len(similar)} more" if len(known) > len(similar) else ""
    return f"the module {module} registers {', '.join(similar)}{more}"


def _module_of(spec: EnvSpec) -> str:
    point = spec.entry_point
    return point.partition(":")[0] if isinstance(point, str) else str(getattr(point, "__module__", ""))


def _stem(name: str) -> str:
    """A name without namespace, version, case and punctuation."""
    return re.sub(r"[\W_]", "", re.sub(r"-v\d+$", "", name.rpartition("/")[2])).casefold()


def _version(gym_id: str) -> str:
    """The digits of an id's version; empty if it has none."""
    return "".join(re.findall(r"-v(\d+)$", gym_id))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
