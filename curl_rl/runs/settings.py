"""A run's settings in layers: from typed dataclasses to the command line, YAML files and back.

The dataclasses define the command line, the YAML schema and the ``--help`` text. Precedence, weakest first: the layers
that the program chooses (a preset, a table of facts), ``--config``, flags in any position.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import yaml
from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace, set_parsing_settings

from curl_rl.runs.errors import UserError
from curl_rl.runs.files import write_durably

C = TypeVar("C")
Layer = dict[str, Any]
"""Settings by name, nested like the dataclasses; settings not named keep their value from the layers below."""
Kind = Literal["agent", "pretraining"]
"""The kind of a run: it trains an agent, or an encoder without labels."""


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
    may_change: tuple[str, ...]
    """Fields or sections that may differ when a run is resumed."""
    registered: tuple[str, ...] = ()
    """Sections with one entry per method in a registry. A saved file may hold entries of methods that this process has
    not registered, which :meth:`read` leaves out: only the method in use matters."""
    consulted: tuple[str, ...] = ()
    """Further fields that ``usual`` reads; strings."""
    usual: Callable[[dict[str, str]], dict[str, str]] = lambda named: {}
    """Values for selectors that a command line does not name, computed from the ``selectors`` and ``consulted`` fields
    that it does name; a selector without such a value gets the dataclass's default."""
    kind: Kind | None = None
    """The kind that :meth:`save` writes into a file under ``kind``, which is not a setting. None writes no kind."""

    def build(self, selected: dict[str, str], changes: Layer | None = None) -> C:
        """The settings for these selector values, with ``changes`` by name applied on top.

        Raises:
            UserError: the preset does not exist.
        """
        parser = self._parser()
        cfg = parser.get_defaults()
        for layer in (*self.base(**selected), selected, changes or {}):
            cfg = parser.parse_object(layer, namespace=cfg)
        return self._instantiate(parser, cfg)

    def parse_command_line(self, argv: list[str], *, program: str, description: str) -> tuple[C, bool]:
        """Parses a command line into a configuration, and whether ``--fresh`` was passed.

        ``--help`` and ``--print_config`` print and exit with code 0.

        Raises:
            UserError: the command line, or a file that it names, is invalid.
        """
        parser = self._parser(program, description)
        parser.add_argument("--config", help="YAML file of settings; overrides the preset, overridden by flags")
        parser.add_argument(
            "--fresh", action="store_true", help="start a new run and set aside an earlier one in the directory"
        )
        parser.add_argument(
            "--print_config", action="store_true", help="print all settings as YAML, for --config, and exit"
        )
        try:
            _refuse_empty_values(argv)
            early = self._early_arguments(argv)
            file_layer = self._settings_in(early.config) if early.config else {}
            self._check_names(file_layer, early.config)
            defaults = self.config()
            given = {name: getattr(early, name) or file_layer.get(name) for name in (*self.selectors, *self.consulted)}
            named = {name: str(value) for name, value in given.items() if value}
            chosen = self.usual(named) | named
            selected = {name: chosen.get(name, str(getattr(defaults, name))) for name in self.selectors}
            cfg = parser.get_defaults()
            for layer in (*self.base(**selected), selected, file_layer):
                cfg = parser.parse_object(layer, namespace=cfg)
            parser.set_defaults(_flat(cfg))
            cfg = parser.parse_args(argv)
            config = self._instantiate(parser, cfg)
        except (ValueError, argparse.ArgumentError) as error:
            raise UserError(self._explained(error)) from None
        if cfg.print_config:
            print(_as_yaml(config), end="")
            raise SystemExit(0)
        return config, cfg.fresh

    def save(self, config: C, path: Path) -> None:
        """Writes the kind of the run and all resolved settings as YAML; the file is replaced atomically."""
        kind = "" if self.kind is None else f"kind: {self.kind}\n"
        write_durably(path, [(kind + _as_yaml(config)).encode()])

    def read(self, path: Path) -> C:
        """Reads a file written by :meth:`save`.

        Raises:
            UserError: the file cannot be read, or holds a field or value that this version does not know.
        """
        content = self._settings_in(path)
        known = to_dict(self.config())
        for section in self.registered:
            if isinstance(content.get(section), dict):
                content[section] = {name: own for name, own in content[section].items() if name in known[section]}
        self._check_names(content, path)
        parser = self._parser()
        try:
            return self._instantiate(parser, parser.parse_object(content, namespace=parser.get_defaults()))
        except (ValueError, argparse.ArgumentError) as error:
            raise UserError(f"{path}: {self._explained(error)}") from None

    def changed_fields(self, old: C, new: C) -> dict[str, tuple[Any, Any]]:
        """The fields that prevent ``new`` from resuming the run of ``old``: values before and after, by name."""
        before, after = _flat(to_dict(old)), _flat(to_dict(new))
        return {
            name: (before[name], after[name])
            for name in before
            if name in after and before[name] != after[name] and name.split(".")[0] not in self.may_change
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
        return parser

    def _instantiate(self, parser: ArgumentParser, cfg: Namespace) -> C:
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
            raise UserError(f"{path}: kind must be {self.kind}, got {kind}: it holds the settings of another command")
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
        """Rewords the parser's error as one line in the style of this project.

        Parses the error's text, because jsonargparse's errors carry no name, type or value.
        """
        text = " ".join(str(error).split())
        if unknown := re.fullmatch(r"unrecognized arguments: (.*)", text):
            flag = unknown[1].split()[0].split("=")[0]
            return text + nearest(flag, [f"--{name}" for name in _flat(to_dict(self.config()))])
        if section := re.match(r'Parser key "([\w.]+)": Unable to load config [\'"](.*?)[\'"]', text):
            settings: Any = to_dict(self.config())
            for part in section[1].split("."):
                settings = settings[part]
            return (
                f"{section[1]} must hold settings by name, such as --{section[1]}.{next(iter(settings))}, "
                f"got {section[2]}"
            )
        value = re.fullmatch(r'Parser key "([\w.]+)": (.*?)(?:Given value type: .*?)?(?:Got|Given) value: ?(.*)', text)
        if value is None:
            return text
        name, expected, given = value[1], value[2], value[3] or "nothing"
        usual = _flat(to_dict(self.config()))
        kinds = [_KINDS[kind] for kind in re.findall(r"<class '(\w+)'>", expected) if kind in _KINDS]
        if isinstance(usual.get(name), list):
            example = usual[name] or "[one, two]"
            kinds = [f"a list, such as {example}" if kind == _KINDS["tuple"] else kind for kind in kinds]
        choices = re.findall(r"\w+", " ".join(re.findall(r"Literal\[(.*?)\]", expected)))
        right = " or ".join(dict.fromkeys((*choices, *kinds)))
        return f"{name} must be {right}, got {given}" if right else text


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


def read_yaml(path: str | Path) -> Layer:
    """Reads settings by name from a YAML file.

    Raises:
        UserError: the file cannot be read, is not YAML, or holds something else.
    """
    try:
        content = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold settings by name, such as `frames: 100000`")
    return content


def merge(under: Layer, over: Layer) -> Layer:
    """Merges two layers; values of ``over`` win."""
    merged = dict(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def nearest(name: str, names: list[str]) -> str:
    """A suffix for a message about an unknown name that suggests the closest of ``names``; may be empty."""
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]}?" if near else ""


_KINDS = {
    "int": "a whole number",
    "float": "a finite number",
    "bool": "true or false",
    "tuple": "a list",
    "str": "text",
}


class _HelpFormatter(argparse.RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Keeps the line breaks of the description, whose lines are commands."""


def _refuse_empty_values(argv: list[str]) -> None:
    """Refuses ``--run=`` and ``--run "$UNSET"``: no setting is empty, and an empty path would be this directory.

    Raises:
        UserError: a flag has no value; the message names it.
    """
    for before, argument in zip(["", *argv], argv, strict=False):
        flag = before if argument == "" and before.startswith("--") else argument.removesuffix("=")
        if argument == "" or re.fullmatch(r"--[\w.]+=", argument):
            raise UserError(f"{flag or 'an empty argument'} has no value")


def _as_yaml(config: Any) -> str:
    text: str = yaml.safe_dump(to_dict(config), sort_keys=False)
    return text


def _flat(nested: Any, prefix: str = "") -> dict[str, Any]:
    items = vars(nested) if isinstance(nested, Namespace) else nested
    flat: dict[str, Any] = {}
    for key, value in items.items():
        if isinstance(value, (dict, Namespace)):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
