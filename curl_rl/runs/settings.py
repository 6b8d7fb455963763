"""A run's settings in layers: from typed dataclasses to the command line, YAML files and back.

The dataclasses are the command line, the YAML schema and the manual at once. What is laid over what: the layers that
the program chooses (a preset, a table of facts) < ``--config`` < flags, wherever they stand in the line.
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
"""Settings by name, nested as the dataclasses are; those that are not named keep what lies below."""
Kind = Literal["agent", "pretraining"]
"""What a run trains: an agent, or an encoder without labels."""


@dataclass(frozen=True)
class Schema(Generic[C]):
    """How the settings of one kind of run are read and written."""

    config: type[C]
    """A dataclass; every field has a default."""
    usage: str
    """The command line in brief, for ``--help``, where all flags would fill a screen."""
    selectors: tuple[str, ...]
    """Fields that decide what all the others are laid over, such as the preset; strings, without a ``None``."""
    base: Callable[..., list[Layer]]
    """The layers, weakest first, for the selectors' values, which it takes by name."""
    may_change: tuple[str, ...]
    """Fields, or sections of them, that may differ when a run is resumed."""
    consulted: tuple[str, ...] = ()
    """Further fields that ``usual`` looks at; strings."""
    usual: Callable[[dict[str, str]], dict[str, str]] = lambda named: {}
    """Selectors' values on a command line that does not name them, from what it names of ``selectors`` and
    ``consulted``; where this gives none, the dataclass's default holds."""
    kind: Kind | None = None
    """What the files that :meth:`save` writes say the run is of, under ``kind``; no setting. None: they do not say."""

    def build(self, selected: dict[str, str], changes: Layer | None = None) -> C:
        """The settings for these selectors' values and, over their layers, ``changes`` by name.

        Raises:
            UserError: there is no such preset.
        """
        parser = self._parser()
        cfg = parser.get_defaults()
        for layer in (*self.base(**selected), selected, changes or {}):
            cfg = parser.parse_object(layer, namespace=cfg)
        return self._instantiate(parser, cfg)

    def parse_command_line(self, argv: list[str], *, program: str, description: str) -> tuple[C, bool]:
        """The configuration that a command line asks for, and whether it says ``--fresh``.

        ``--help`` and ``--print_config`` print and exit with code 0.

        Raises:
            UserError: the line, or a file that it names, cannot be understood.
        """
        parser = self._parser(program, description)
        parser.add_argument("--config", help="YAML settings: weaker than flags, stronger than the preset")
        parser.add_argument(
            "--fresh", action="store_true", help="start anew; an earlier run in the directory is set aside"
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
        """Writes everything, resolved, as YAML, and the kind of the run; the file is whole or as it was."""
        kind = "" if self.kind is None else f"kind: {self.kind}\n"
        write_durably(path, [(kind + _as_yaml(config)).encode()])

    def read(self, path: Path) -> C:
        """What :meth:`save` wrote.

        Raises:
            UserError: the file cannot be read, or holds a field or value that this version does not know.
        """
        content = self._settings_in(path)
        self._check_names(content, path)
        parser = self._parser()
        try:
            return self._instantiate(parser, parser.parse_object(content, namespace=parser.get_defaults()))
        except (ValueError, argparse.ArgumentError) as error:
            raise UserError(f"{path}: {self._explained(error)}") from None

    def changed_fields(self, old: C, new: C) -> dict[str, tuple[Any, Any]]:
        """What forbids ``new`` to go on with the run of ``old``: the value before and after, by the field's name."""
        before, after = _flat(to_dict(old)), _flat(to_dict(new))
        return {
            name: (before[name], after[name])
            for name in before
            if before[name] != after[name] and name.split(".")[0] not in self.may_change
        }

    def _parser(self, program: str | None = None, description: str | None = None) -> ArgumentParser:
        set_parsing_settings(docstring_parse_attribute_docstrings=True)
        parser = ArgumentParser(
            prog=program,
            description=description,
            usage=self.usage,
            formatter_class=_HelpFormatter,
            allow_abbrev=False,
            exit_on_error=False,  # a mistake is one line, which the caller shows
            print_config=None,  # that of parse_command_line prints what the layers make together
        )
        parser.add_class_arguments(self.config, as_group=False)
        return parser

    def _instantiate(self, parser: ArgumentParser, cfg: Namespace) -> C:
        objects = parser.instantiate(cfg)
        fields: Any = self.config
        return self.config(**{f.name: getattr(objects, f.name) for f in dataclasses.fields(fields)})

    def _early_arguments(self, argv: list[str]) -> argparse.Namespace:
        """The selectors and ``--config``, which decide what the other flags are laid over."""
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
        for name in (*self.selectors, *self.consulted, "config"):
            parser.add_argument(f"--{name}")
        return parser.parse_known_args(argv)[0]

    def _settings_in(self, path: str | Path) -> Layer:
        """The settings in a file, without the kind, which a run's own configuration and none written by hand has.

        Raises:
            UserError: as :func:`read_yaml`, or the file is of another kind of run.
        """
        settings = read_yaml(path)
        if self.kind is not None and (kind := settings.pop("kind", self.kind)) != self.kind:
            raise UserError(f"{path}: kind must be {self.kind}, got {kind}: it holds the settings of another command")
        return settings

    def _check_names(self, layer: Layer, path: str | Path) -> None:
        """Refuses what is no setting, and what is no value: the parser takes a section that holds a number for its
        default.

        Raises:
            UserError: which name it is, and what it might have been meant to be.
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
        """The parser's complaint as one line in the words of this project.

        Taken from its text, because jsonargparse's errors carry nothing else: no name, no type and no value.
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
                f"{section[1]} holds settings by name, such as --{section[1]}.{next(iter(settings))}, got {section[2]}"
            )
        value = re.fullmatch(r'Parser key "([\w.]+)": (.*?)(?:Got|Given) value: ?(.*)', text)
        if value is None:
            return text
        name, expected, given = value[1], value[2], value[3] or "nothing"
        usual = _flat(to_dict(self.config()))
        kinds = [_KINDS[kind] for kind in re.findall(r"<class '(\w+)'>", expected) if kind in _KINDS]
        if isinstance(usual.get(name), list):
            kinds = [f"a list, such as {usual[name]}" if kind == _KINDS["tuple"] else kind for kind in kinds]
        choices = re.findall(r"\w+", " ".join(re.findall(r"Literal\[(.*?)\]", expected)))
        right = " or ".join(dict.fromkeys(choices or kinds))
        return f"{name} must be {right}, got {given}" if right else text


def to_dict(config: Any) -> Layer:
    """The configuration, a dataclass, as plain YAML types."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        return str(value) if isinstance(value, Path) else value

    result: Layer = plain(dataclasses.asdict(config))
    return result


def preset_layer(name: str, directory: Path, others: tuple[Path, ...] = ()) -> Layer:
    """The preset called ``name``: a YAML file in ``directory`` that is none of the ``others``.

    Raises:
        UserError: there is no such preset.
    """
    names = sorted(path.stem for path in directory.glob("*.yaml") if path not in others)
    if name not in names:
        raise UserError(f"unknown preset {name}; presets are {', '.join(names)}{nearest(name, names)}")
    return {**read_yaml(directory / f"{name}.yaml"), "preset": name}


def read_yaml(path: str | Path) -> Layer:
    """Settings by name from a YAML file.

    Raises:
        UserError: the file cannot be read, is no YAML, or holds something else.
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
    """Both layers as one."""
    merged = dict(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def nearest(name: str, names: list[str]) -> str:
    """The end of a sentence about an unknown name: which of ``names`` it may have been meant to be."""
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]}?" if near else ""


_KINDS = {"int": "a whole number", "float": "a finite number", "bool": "true or false", "tuple": "a list"}


class _HelpFormatter(argparse.RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Leaves the lines of the description, which are commands, as they are."""


def _refuse_empty_values(argv: list[str]) -> None:
    """``--run=`` or ``--run "$UNSET"``: no setting is an empty text, and a path of none would be this directory.

    Raises:
        UserError: which flag has no value.
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
