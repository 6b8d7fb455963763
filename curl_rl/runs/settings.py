"""A run's settings in layers: from typed dataclasses to the command line, YAML files and back.

The dataclasses define the command line, the YAML schema and the ``--help`` text. Precedence, weakest first: the layers
that the program chooses (a preset, a table of facts), ``--config``, flags in any position.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace, set_parsing_settings

from curl_rl.runs.errors import UserError
from curl_rl.runs.kinds import KINDS, Kind
from curl_rl.runs.parser_errors import explained
from curl_rl.runs.parser_errors import nearest as nearest
from curl_rl.runs.spelling import in_this_spelling
from curl_rl.runs.whole_numbers import whole_number_settings, with_whole_numbers
from curl_rl.runs.yaml_file import Layer as Layer
from curl_rl.runs.yaml_file import as_yaml, check_complete, write_settings
from curl_rl.runs.yaml_file import read_yaml as read_yaml

C = TypeVar("C")
Changes = dict[str, tuple[Any, Any]]
"""Settings that differ between two configurations: values before and after, by full name such as ``log.every``."""


@dataclass(frozen=True)
class Fitting:
    """What :attr:`Schema.fit` decides from. Settings by full name."""

    base: Layer
    """The preset and the tables."""
    merged: Layer
    """With the file and the flags on top."""
    chosen: frozenset[str]
    """Names of the settings and sections that the file and the flags name."""

    def is_chosen(self, name: str) -> bool:
        """Whether the user has set ``name``, by itself or with its whole section."""
        parts = name.split(".")
        return any(".".join(parts[:depth]) in self.chosen for depth in range(1, len(parts) + 1))


@dataclass(frozen=True)
class Schema(Generic[C]):
    """Reads and writes the settings of one kind of run."""

    config: type[C]
    """A dataclass; every field has a default."""
    usage: str
    """A brief usage line for ``--help``, where the full list of flags would fill a screen."""
    selectors: tuple[str, ...]
    """Fields that choose the base layers, such as the preset; strings, never ``None``."""
    base: Callable[..., list[Layer]]
    """Takes the selectors' values by name and returns the base layers, weakest first."""
    may_change: Mapping[str, str]
    """Fields and sections that may differ when a run is resumed, each with the reason. All others make it another run,
    because they change its weights, its data or the meaning of its results."""
    paths: tuple[str, ...] = ()
    """Fields that hold a path: a leading ``~`` is expanded, and two spellings of one place are equal."""
    identified_by: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Paths whose content is what counts: the field that records its hash. A resumed run may name another path with
    the same content."""
    fit: Callable[[Fitting], Layer] = lambda fitting: {}
    """Adapts settings that the user did not choose to those that they did; returns the changes, by full name."""
    registered: tuple[str, ...] = ()
    """Sections with one entry per method in a registry. A saved file may hold entries of methods that this process has
    not registered, which :meth:`read` leaves out: only the method in use matters."""
    methods: Callable[[C], Collection[str]] = lambda config: ()
    """Names of the entries of :attr:`registered` that the run uses. The others are no part of it: a preset may gain
    settings of a new method, and earlier runs still resume."""
    consulted: tuple[str, ...] = ()
    """Further fields that ``usual`` reads; strings."""
    usual: Callable[[dict[str, str]], dict[str, str]] = lambda named: {}
    """Values for selectors that a command line does not name, computed from the ``selectors`` and ``consulted`` fields
    that it does name; a selector without such a value gets the dataclass's default."""
    always: tuple[str, ...] = ()
    """The fields and sections that every version has written into a run's file. One without them is cut short."""
    listed: Mapping[str, Callable[[], Mapping[str, str]]] = dataclasses.field(default_factory=dict)
    """Fields whose flag, without a value, lists the choices: each with a line that describes it."""
    taken: Mapping[str, Callable[[], Collection[str]]] = dataclasses.field(default_factory=dict)
    """Fields whose type has values that only other commands take: those that this one takes, for help and messages."""
    salvages: bool = False
    """Whether a run can continue from a damaged checkpoint, with ``--salvage``."""
    kind: Kind | None = None
    """The kind that :meth:`save` writes into a file under ``kind``, which is not a setting. None writes no kind."""

    def build(self, selected: dict[str, str], changes: Layer | None = None) -> C:
        """The settings for these selector values, with ``changes`` by name applied on top.

        Raises:
            UserError: the preset does not exist.
        """
        parser = self._reader()
        cfg = self._base(parser, selected)
        base = _flat(cfg)
        cfg = self._applied(parser, cfg, changes or {})
        return self._instantiate(parser, self._fitted(cfg, base, set(_flat(changes or {}))))

    def parse_command_line(self, argv: list[str], *, program: str, description: str) -> tuple[C, bool, bool]:
        """Parses a command line into a configuration, and whether ``--fresh`` and ``--salvage`` were passed.

        ``--help``, ``--print_config`` and a flag of :attr:`listed` without a value print and exit with code 0.

        Raises:
            UserError: the command line, or a file that it names, is invalid.
        """
        parser = self._parser(program, description)
        parser.add_argument("--config", help="YAML file of settings; overrides the preset, overridden by flags")
        parser.add_argument(
            "--fresh", action="store_true", help="start a new run and set aside an earlier one in the directory"
        )
        if self.salvages:
            parser.add_argument(
                "--salvage",
                action="store_true",
                help="if every checkpoint is damaged, resume from one whose networks are whole, without the damaged "
                "part of its replay",
            )
        parser.add_argument(
            "--print_config", action="store_true", help="print all settings as YAML, for --config, and exit"
        )
        for name, choices in self.listed.items():
            if _is_without_value(argv, f"--{name}"):
                lines = choices()
                print("\n".join(f"{choice:{max(map(len, lines))}}  {line}" for choice, line in lines.items()))
                raise SystemExit(0)
        try:
            _refuse_empty_values(argv)
            argv = self._rewritten(argv)
            early = self._early_arguments(argv)
            file_layer = self._settings_in(early.config) if early.config else {}
            self._check_names(file_layer, early.config)
            defaults = self.config()
            given = {name: getattr(early, name) or file_layer.get(name) for name in (*self.selectors, *self.consulted)}
            named = {name: str(value) for name, value in given.items() if value}
            chosen = self.usual(named) | named
            selected = {name: chosen.get(name, str(getattr(defaults, name))) for name in self.selectors}
            cfg = self._base(parser, selected)
            base = _flat(cfg)
            parser.set_defaults(_flat(self._applied(parser, cfg, file_layer)))
            cfg = parser.parse_args(argv)
            config = self._instantiate(parser, self._fitted(cfg, base, {*_flat(file_layer), *_flags(argv)}))
        except (ValueError, argparse.ArgumentError) as error:
            raise UserError(self._explained(error)) from None
        if cfg.print_config:
            print(as_yaml(to_dict(config)), end="")
            raise SystemExit(0)
        salvage = self.salvages and cfg.salvage
        if cfg.fresh and salvage:
            raise UserError("--fresh starts a new run and --salvage continues the earlier one: choose one of them")
        return config, cfg.fresh, salvage

    def save(self, config: C, path: Path) -> None:
        """Writes the kind of the run and all resolved settings as YAML; the file is replaced atomically."""
        write_settings(path, to_dict(config), self.kind)

    def read(self, path: Path) -> C:
        """Reads a file written by :meth:`save`.

        Raises:
            UserError: the file cannot be read, is incomplete, or holds a field or value that this version does not
                know.
        """
        content = self._settings_in(path)
        whole = dict(content)
        known = to_dict(self.config())
        for section in self.registered:
            if isinstance(content.get(section), dict):
                content[section] = {name: own for name, own in content[section].items() if name in known[section]}
        self._check_names(content, path)
        parser = self._reader()
        try:
            config = self._instantiate(parser, self._applied(parser, parser.get_defaults(), content))
        except (ValueError, argparse.ArgumentError) as error:
            raise UserError(f"{path}: {self._explained(error)}") from None
        check_complete(path, whole, self.always)
        return config

    def changed_fields(self, old: C, new: C) -> Changes:
        """The fields that prevent ``new`` from resuming the run of ``old``."""
        allowed = self.allowed_changes(old, new)
        return {name: values for name, values in self._differences(old, new).items() if name not in allowed}

    def allowed_changes(self, old: C, new: C) -> Changes:
        """The fields in which ``new`` differs from ``old`` and may resume its run nevertheless."""
        before, after = _flat(to_dict(old)), _flat(to_dict(new))

        def is_allowed(name: str) -> bool:
            if name in self.may_change or name.split(".")[0] in self.may_change:
                return True
            if name in self.paths and None not in (before[name], after[name]):
                content = self.identified_by.get(name, "")
                same_content = before.get(content) is not None and before.get(content) == after.get(content)
                return same_content or is_same_place(before[name], after[name])
            return False

        return {name: values for name, values in self._differences(old, new).items() if is_allowed(name)}

    def lasting(self, config: C) -> Layer:
        """The settings by full name that stay the same for the whole run, of the methods that it uses.

        A checkpoint holds them, so that a configuration that was edited since is noticed. Paths are left out: another
        spelling, or another place of the same content, is the same.
        """
        used = self.methods(config)

        def lasts(name: str) -> bool:
            section, _, rest = name.partition(".")
            unused = section in self.registered and rest.partition(".")[0] not in used
            return not unused and section not in self.may_change and name not in (*self.may_change, *self.paths)

        return {name: value for name, value in _flat(to_dict(config)).items() if lasts(name)}

    def distinguishing_fields(self, one: C, other: C) -> Changes:
        """The fields by which a table or a plot tells two runs apart: all but those of their surroundings."""
        differences = self._differences(one, other)
        return {name: values for name, values in differences.items() if name.split(".")[0] not in _SURROUNDINGS}

    def _differences(self, old: C, new: C) -> Changes:
        """The settings in which two configurations differ, without those of methods that neither uses."""
        before, after = _flat(to_dict(old)), _flat(to_dict(new))
        used = {*self.methods(old), *self.methods(new)}

        def matters(name: str) -> bool:
            section, _, rest = name.partition(".")
            return section not in self.registered or rest.partition(".")[0] in used

        return {
            name: (before[name], after[name])
            for name in before
            if name in after and before[name] != after[name] and matters(name)
        }

    def _parser(self, program: str | None = None, description: str | None = None) -> ArgumentParser:
        set_parsing_settings(docstring_parse_attribute_docstrings=True)
        parser = ArgumentParser(
            prog=program,
            description=description,
            usage=self.usage,
            formatter_class=_HelpFormatter,
            allow_abbrev=False,
            exit_on_error=False,  # the caller shows errors as one line
            print_config=None,  # parse_command_line has its own, which prints the merged layers
        )
        parser.add_class_arguments(self.config, as_group=False)
        for action in parser._actions:
            if action.dest in self.taken:
                action.metavar = f"{{{','.join(self.taken[action.dest]())}}}"
                action.help = f"{action.help}%(type).0s"  # the type, of which nothing is shown
        return parser

    def _reader(self) -> ArgumentParser:
        """A parser for files; it takes a while to make. Its defaults must not be changed."""
        # Registering a method replaces the classes of the sections that list the methods.
        key = (self.config, *map(type, vars(self.config()).values()))
        if key not in _READERS:
            _READERS[key] = self._parser()
        return _READERS[key]

    def _base(self, parser: ArgumentParser, selected: dict[str, str]) -> Namespace:
        """The dataclass's defaults under the layers that these selector values choose."""
        layers = [*self.base(**selected), dict(selected)]
        return self._applied(parser, parser.get_defaults(), functools.reduce(merge, layers))

    def _applied(self, parser: ArgumentParser, cfg: Namespace, layer: Layer) -> Namespace:
        """``cfg`` with the settings of ``layer`` on top."""
        if not layer:
            return cfg
        whole = whole_number_settings(self.config)

        def read(part: Layer, prefix: str) -> Layer:
            names = {key: f"{prefix}{key}" for key in part}
            return {
                key: read(value, f"{names[key]}.")
                if isinstance(value, dict)
                else with_whole_numbers(value)
                if names[key] in whole
                else value
                for key, value in part.items()
            }

        return parser.parse_object(read(layer, ""), namespace=cfg)

    def _fitted(self, cfg: Namespace, base: Layer, chosen: set[str]) -> Namespace:
        for name, value in self.fit(Fitting(base, _flat(cfg), frozenset(chosen))).items():
            cfg[name] = value
        return cfg

    def _rewritten(self, argv: list[str]) -> list[str]:
        """The command line with whole numbers spelled by their digits, and with ``~`` expanded in paths."""
        whole = whole_number_settings(self.config)
        sections = {name.rsplit(".", depth)[0] for name in whole for depth in range(1, 1 + name.count("."))}

        def respelled(flag: str, value: str) -> str:
            name = flag.removeprefix("--")
            if name in whole | sections:
                return str(with_whole_numbers(value))
            return os.path.expanduser(value) if name in (*self.paths, "config") else value

        rewritten: list[str] = []
        for before, argument in zip(["", *argv], argv, strict=False):
            if not argument.startswith("--"):
                rewritten.append(respelled(before, argument))
            elif "=" in argument:
                flag, value = argument.split("=", 1)
                rewritten.append(f"{flag}={respelled(flag, value)}")
            else:
                rewritten.append(argument)
        return rewritten

    def _instantiate(self, parser: ArgumentParser, cfg: Namespace) -> C:
        for name in self.paths:
            if cfg[name] is not None:
                cfg[name] = type(cfg[name])(os.path.expanduser(str(cfg[name])))
        objects = parser.instantiate(cfg)
        fields: Any = self.config
        return self.config(**{f.name: getattr(objects, f.name) for f in dataclasses.fields(fields)})

    def _early_arguments(self, argv: list[str]) -> argparse.Namespace:
        """The selectors and ``--config``, which decide the layers below the other flags."""
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
        for name in (*self.selectors, *self.consulted, "config"):
            parser.add_argument(f"--{name}")
        return parser.parse_known_args(argv)[0]

    def _settings_in(self, path: str | Path) -> Layer:
        """The settings in a file, without the kind, which only a run's own configuration has.

        Raises:
            UserError: as :func:`read_yaml`, or the file is for another kind of run.
        """
        settings = read_yaml(path)
        if self.kind is not None and (kind := settings.pop("kind", self.kind)) != self.kind:
            takes = f"{KINDS[kind].by} takes these settings" if kind in KINDS else "a newer version may know it"
            raise UserError(f"{path}: kind must be {self.kind}, got {kind}: {takes}")
        return settings

    def _check_names(self, layer: Layer, path: str | Path) -> None:
        """Refuses unknown settings and missing values, because the parser replaces a section that holds a number by its
        default.

        Raises:
            UserError: the message names the setting and suggests a similar name.
        """

        def check(part: Layer, known: Layer, prefix: str) -> None:
            for key, value in part.items():
                if key not in known:
                    raise UserError(f"{path}: unknown setting {prefix}{key}{nearest(str(key), list(known))}")
                if isinstance(known[key], dict):
                    if not isinstance(value, dict):
                        raise UserError(f"{path}: {prefix}{key} must hold settings by name, got {value}")
                    check(value, known[key], f"{prefix}{key}.")
                elif value is None and known[key] is not None:
                    raise UserError(f"{path}: {prefix}{key} has no value")

        check(layer, to_dict(self.config()), "")

    def _explained(self, error: Exception) -> str:
        usual = to_dict(self.config())
        return explained(error, usual, _flat(usual), {name: values() for name, values in self.taken.items()})


def is_same_place(one: str | Path, other: str | Path) -> bool:
    """Whether two paths lead to the same place, through links or not, whether or not anything is there."""
    return os.path.realpath(one) == os.path.realpath(other)


def to_dict(config: Any) -> Layer:
    """Converts a configuration dataclass to plain YAML types."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        return str(value) if isinstance(value, Path) else value

    result: Layer = plain(dataclasses.asdict(config))
    return result


def preset_layer(name: str, directory: Path, others: tuple[Path, ...] = ()) -> Layer:
    """The preset called ``name``: a YAML file in ``directory`` that is not one of the ``others``.

    Raises:
        UserError: the preset does not exist.
    """
    names = sorted(path.stem for path in directory.glob("*.yaml") if path not in others)
    if name not in names:
        raise UserError(f"unknown preset {name}; presets are {', '.join(names)}{nearest(name, names)}")
    return {**read_yaml(directory / f"{name}.yaml"), "preset": name}


def merge(under: Layer, over: Layer) -> Layer:
    """Merges two layers; values of ``over`` win."""
    merged = dict(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


_READERS: dict[tuple[type, ...], ArgumentParser] = {}
_SURROUNDINGS = ("run", "device", "compute", "log")


class _HelpFormatter(argparse.RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Keeps the line breaks of the description, whose lines are commands."""

    def format_help(self) -> str:
        return in_this_spelling(super().format_help())


def _is_without_value(argv: list[str], flag: str) -> bool:
    """Whether ``flag`` ends the command line or is followed by another flag."""
    return any(one == flag and after.startswith("--") for one, after in zip(argv, [*argv[1:], "--"], strict=False))


def _refuse_empty_values(argv: list[str]) -> None:
    """Refuses ``--run=`` and ``--run "$UNSET"``: no setting is empty, and an empty path would be this directory.

    Raises:
        UserError: a flag has no value; the message names it.
    """
    for before, argument in zip(["", *argv], argv, strict=False):
        flag = before if argument == "" and before.startswith("--") else argument.removesuffix("=")
        if argument == "" or re.fullmatch(r"--[\w.]+=", argument):
            raise UserError(f"{flag or 'an empty argument'} has no value")


def _flags(argv: list[str]) -> set[str]:
    """Names of the settings that a command line sets."""
    return {argument[2:].split("=")[0] for argument in argv if argument.startswith("--")}


def _flat(nested: Any, prefix: str = "") -> dict[str, Any]:
    items = vars(nested) if isinstance(nested, Namespace) else nested
    flat: dict[str, Any] = {}
    for key, value in items.items():
        if isinstance(value, (dict, Namespace)):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
