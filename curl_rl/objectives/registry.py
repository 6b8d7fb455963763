"""The table of methods, from which the command line's choices, the settings and the refusals are built.

A new method is a file in this folder and a line in ``_FILES``. :func:`register` adds methods defined elsewhere.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from curl_rl.encoders import FeatureSpec
from curl_rl.objectives.base import DataSpec, Need, Objective
from curl_rl.objectives.method import Method

_FILES = (
    "curl",
    "simclr",
    "moco",
    "byol",
    "simsiam",
    "barlow",
    "swav",
    "deepcluster",
    "instdisc",
    "nnclr",
    "pcl",
    "supcon",
    "pair_margin",
    "triplet",
    "n_pair",
    "open_world",
    "dim",
    "cmc",
    "amdim",
    "cpc",
    "simcse",
    "quick_thoughts",
    "is_bert",
    "clip",
)
"""The methods' files in this folder, in the order in which the command line lists them."""

METHODS: dict[str, Method] = {}
"""All methods by name: those of the files above, and those added by :func:`register`."""
for _file in _FILES:
    _method: Method = importlib.import_module(f"curl_rl.objectives.{_file}").METHOD
    METHODS[_method.name] = _method

if TYPE_CHECKING:
    ObjectiveName = str
    MethodName = str

    class ObjectiveConfigs:
        """Settings of each method, by its name."""

        def __init__(self, **settings: Any) -> None: ...
        def __getattr__(self, name: str) -> Any: ...


def _reduce(settings: Any) -> tuple[Any, ...]:
    """Pickles settings by the methods' names, because :func:`register` replaces their class."""
    return _restored, (vars(settings),)


def _restored(settings: dict[str, Any]) -> ObjectiveConfigs:
    """The settings of the methods that this process knows; methods registered since have their defaults."""
    return ObjectiveConfigs(**{name: own for name, own in settings.items() if name in METHODS})


@functools.cache
def _settings_of(methods: tuple[Method, ...]) -> Any:
    """Builds the dataclass with the settings of these methods; the same class for the same methods."""
    documentation = [f"    {method.name}: {method.summary}" for method in methods]
    lines = ["Settings of each method; only those of the method in use matter.", "", "Attributes:", *documentation]
    return dataclasses.make_dataclass(
        "ObjectiveConfigs",
        [(method.name, method.config, dataclasses.field(default_factory=method.config)) for method in methods],
        frozen=True,
        namespace={"__module__": __name__, "__doc__": "\n".join(lines), "__reduce__": _reduce},
    )


def _publish() -> None:
    """Builds the types that depend on the table. Settings refer to them as ``registry.X``, which is looked up late."""
    names = tuple(METHODS)
    globals().update(
        MethodName=Literal[names],
        ObjectiveName=Literal[(*names, "none")],
        ObjectiveConfigs=_settings_of(tuple(METHODS.values())),
    )


_publish()


def register(method: Method) -> None:
    """Adds a method from outside this package, for all users of objectives and all command lines.

    Raises:
        ValueError: the name is taken.
    """
    if method.name in (*METHODS, "none"):
        raise ValueError(f"the name of a method must be new, got {method.name!r}, which is taken")
    METHODS[method.name] = method
    _publish()


def usable(has: Collection[Need]) -> tuple[str, ...]:
    """The methods whose needs are among ``has``, in order."""
    return tuple(name for name, method in METHODS.items() if method.objective.needs <= {*has})


def summaries(has: Collection[Need]) -> dict[str, str]:
    """A line on each method, by name, for a user that can meet the needs ``has``."""

    def line(method: Method) -> str:
        missing = sorted(method.objective.needs - {*has})
        return f"{method.summary} Not here: needs {' and '.join(missing)}." if missing else method.summary

    return {name: line(method) for name, method in METHODS.items()}


def markdown_table(pages: Collection[str] = ()) -> str:
    """The table of methods in docs/methods.md.

    Args:
        pages: names of the methods that have a page in docs/methods/, which the table links to.
    """
    rows = ["| name | paper | file | needs | what it does |", "| --- | --- | --- | --- | --- |"]
    for method in METHODS.values():
        file = f"{method.objective.__module__.replace('.', '/')}.py"
        needs = ", ".join(sorted(method.objective.needs)) or "–"
        name = f"[`{method.name}`](methods/{method.name}.md)" if method.name in pages else f"`{method.name}`"
        rows.append(f"| {name} | {method.paper} | `{file}` | {needs} | {method.summary} |")
    return "\n".join(rows)


def objective_configs() -> ObjectiveConfigs:
    """The default settings of every method."""
    return ObjectiveConfigs()


class ObjectiveUser(NamedTuple):
    """A user of methods, and the needs that it can meet."""

    setting: str
    """Setting that names the method, such as ``agent.objective``."""
    owner: str
    """Name for the user in messages, such as ``a replay``."""
    has: frozenset[Need]
    """The needs that can be met here."""

    def refuse(self, method: str, needs: frozenset[Need]) -> None:
        """Refuses a method whose needs cannot be met.

        Raises:
            ValueError: a need is not met; the message suggests another method.
        """
        if missing := sorted(needs - self.has):
            instead = METHODS[method].instead if method in METHODS else "simclr"
            lacking = f"{' and '.join(missing)}, which {self.owner} does not have"
            raise ValueError(f"{self.setting} {method} needs {lacking}: take {instead}")


def build_objective(
    name: ObjectiveName,
    features: FeatureSpec,
    configs: ObjectiveConfigs | None = None,
    data: DataSpec = DataSpec(),  # noqa: B008 (frozen)
    user: ObjectiveUser | None = None,
) -> Objective | None:
    """Builds the method called ``name`` for an encoder with these features; returns None for ``none``.

    Args:
        name: one of :data:`METHODS`, or ``none``.
        features: sizes of the encoder's features.
        configs: settings of each method; None for the defaults.
        data: sizes of the data, if known.
        user: the user of the method; None for one that meets all needs.

    Raises:
        ValueError: the method is unknown, or cannot be used here.
    """
    if name == "none":
        return None
    if name not in METHODS:
        near = difflib.get_close_matches(str(name).lower(), METHODS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        names = METHODS if user is None else usable(user.has)
        raise ValueError(f"unknown objective {name!r}: the methods are {', '.join(names)}{hint}")
    method = METHODS[name]
    if user is not None:
        user.refuse(name, method.objective.needs)
    # Settings created before the method was registered have no entry for it.
    objective = method.objective.build(features, getattr(configs, name, None) or method.config(), data)
    if user is not None:
        user.refuse(name, objective.needs)  # they may depend on the settings
    return objective
