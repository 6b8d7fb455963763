"""The configuration of a run: typed dataclasses that are the command line, the YAML schema and the manual at once.

Precedence: preset < the table of tasks (configs/tasks.yaml) < ``--config`` < flags, wherever they stand in the line.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import fnmatch
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace, set_parsing_settings

from curl_rl.agent import AgentConfig
from curl_rl.durable import write_durably
from curl_rl.errors import UserError
from curl_rl.objectives import ObjectiveConfigs
from curl_rl.replay import ReplayConfig

PRESETS = Path(__file__).resolve().parent.parent / "configs"
TASKS = PRESETS / "tasks.yaml"

# What a resumed run may change: its budget, device, workers and logging.
MAY_CHANGE = ("frames", "device", "compute", "log", "run")


@dataclass(frozen=True)
class EnvironmentConfig:
    """What the agent is shown of its environment."""

    size: int = 100
    """Side of the rendered frame, in pixels."""
    stack: int = 3
    """Consecutive frames in one observation."""
    action_repeat: int = 4
    """Environment steps that one action lasts."""
    quality: Literal["faithful", "fast"] = "faithful"
    """Rendering: faithful, the benchmark's pixels; fast, without shadows, reflections and multisampling (in software
    about ten times faster, and slightly other pixels)."""

    def __post_init__(self) -> None:
        for name in ("size", "stack", "action_repeat"):
            if getattr(self, name) < 1:
                raise ValueError(f"environment.{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class TrainingConfig:
    """The rhythm of acting and learning."""

    random_steps: int = 1000
    """Agent steps taken at random before learning starts (Table 3: initial steps)."""
    update_every: int = 1
    """Agent steps from one update to the next."""
    overlap: bool = False
    """Simulate and draw each step in a process of its own while the update runs. The update then knows of all steps but
    this newest one; a run is as reproducible as without."""

    def __post_init__(self) -> None:
        for name in ("random_steps", "update_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"training.{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class EvaluationConfig:
    """Episodes of the deterministic policy on an environment and seeds of their own."""

    every: int = 10_000
    """Environment frames from one evaluation to the next; 0, none at all."""
    episodes: int = 10
    """Episodes in one evaluation."""
    video: bool = True
    """Keep the first episode of each evaluation as a GIF."""

    def __post_init__(self) -> None:
        if self.every < 0:
            raise ValueError(f"evaluation.every must be 0 (never) or more, got {self.every}")
        if self.episodes < 1:
            raise ValueError(f"evaluation.episodes must be at least 1, got {self.episodes}")


@dataclass(frozen=True)
class CheckpointConfig:
    """When a run is saved; besides, it is saved on Ctrl-C, on SIGTERM and at its end."""

    every: int = 10_000
    """Environment frames from one checkpoint to the next."""
    keep: int = 2
    """Newest checkpoints kept."""

    def __post_init__(self) -> None:
        for name in ("every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"checkpoint.{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class LogConfig:
    """What is written while a run goes on."""

    every: int = 1000
    """Environment frames from one row of learning metrics to the next."""
    images_every: int = 20_000
    """Environment frames from one picture of observations and their crops to the next; 0, none."""

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"log.every must be at least 1, got {self.every}")
        if self.images_every < 0:
            raise ValueError(f"log.images_every must be 0 (never) or more, got {self.images_every}")


@dataclass(frozen=True)
class ComputeConfig:
    """How the machine is used; nothing here changes what is learnt, up to rounding."""

    threads: int = 0
    """CPU threads of PyTorch; 0, as many as it chooses."""
    capture: bool = False
    """Run sampling, crops and update as one CUDA graph; needs the replay on the GPU."""

    def __post_init__(self) -> None:
        if self.threads < 0:
            raise ValueError(f"compute.threads must be 0 (automatic) or more, got {self.threads}")


@dataclass(frozen=True)
class RunConfig:
    """One training run."""

    env: str = "cheetah-run"
    """Task: domain-task of the DeepMind Control suite, tiny-reach, or gym:<id> for another environment that renders."""
    preset: str = "curl"
    """YAML file in configs/ that the settings start from: curl, official, cpu or sac."""
    frames: int = 500_000
    """Budget in environment frames (agent steps times action repeat)."""
    seed: int = 1
    """Seed of the networks, the exploration and the environment."""
    device: str = "auto"
    """Where the agent learns: auto, cpu, cuda or cuda:<n>."""
    run: Path | None = None
    """Directory of the run. [default: runs/<env>/<preset>/seed<seed>]"""
    environment: EnvironmentConfig = field(default_factory=EnvironmentConfig)
    """Pixels and actions."""
    agent: AgentConfig = field(default_factory=AgentConfig)
    """Soft Actor-Critic and its objective."""
    objectives: ObjectiveConfigs = field(default_factory=ObjectiveConfigs)
    """Settings of each self-supervised method."""
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    """Memory of transitions."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """Rhythm of acting and learning."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """Evaluation."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """Checkpoints."""
    log: LogConfig = field(default_factory=LogConfig)
    """Logging."""
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    """Use of the machine."""

    def __post_init__(self) -> None:
        # Ten digits are what a checkpoint's name has room for, 32 bits what every generator of random numbers takes.
        if not 1 <= self.frames < 10**10:
            raise ValueError(f"frames must be at least 1 and have at most ten digits, got {self.frames}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be 0 or more and below 2**32, got {self.seed}")
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise ValueError(f"device must be auto, cpu, cuda or cuda:<n>, got {self.device!r}")
        if self.agent.crop > self.environment.size:
            raise ValueError(
                f"agent.crop {self.agent.crop} is larger than environment.size {self.environment.size}: "
                "the crop is cut out of the rendered frame"
            )
        if self.replay.capacity < self.agent.batch_size:
            raise ValueError(
                f"replay.capacity {self.replay.capacity} is smaller than agent.batch_size {self.agent.batch_size}"
            )

    @property
    def directory(self) -> Path:
        """Where the run lives."""
        task = self.env.replace(":", "_").replace("/", "_")
        return self.run or Path("runs") / task / self.preset / f"seed{self.seed}"


def load_preset(name: str, env: str, changes: dict[str, Any] | None = None) -> RunConfig:
    """The preset called ``name`` with the table's facts about the task ``env`` and, over both, ``changes`` by name.

    Raises:
        UserError: there is no such preset.
    """
    parser = _parser()
    cfg = parser.get_defaults()
    for layer in (_preset_layer(name), _task_layer(env, name), {"env": env, "preset": name}, changes or {}):
        cfg = parser.parse_object(layer, namespace=cfg)
    return _instantiate(parser, cfg)


def parse_command_line(argv: list[str], *, program: str, description: str) -> tuple[RunConfig, bool]:
    """The configuration that a command line asks for, and whether it says ``--fresh``.

    ``--help`` and ``--print_config`` print and exit with code 0.

    Raises:
        UserError: the line, or a file that it names, cannot be understood.
    """
    parser = _parser(program, description)
    parser.add_argument("--config", help="YAML settings: weaker than flags, stronger than the preset")
    parser.add_argument("--fresh", action="store_true", help="start anew; an earlier run in the directory is set aside")
    parser.add_argument(
        "--print_config", action="store_true", help="print all settings as YAML, for --config, and exit"
    )
    try:
        early = _early_arguments(argv)
        file_layer = _read_yaml(early.config) if early.config else {}
        _check_names(file_layer, early.config)
        env = early.env or file_layer.get("env") or RunConfig.env
        preset = early.preset or file_layer.get("preset") or RunConfig.preset
        cfg = parser.get_defaults()
        for layer in (_preset_layer(str(preset)), _task_layer(str(env), str(preset)), file_layer):
            cfg = parser.parse_object(layer, namespace=cfg)
        parser.set_defaults(_flat(cfg))
        cfg = parser.parse_args(argv)
        config = _instantiate(parser, cfg)
    except (ValueError, argparse.ArgumentError) as error:
        raise UserError(_explained(error)) from None
    if cfg.print_config:
        print(_as_yaml(config), end="")
        raise SystemExit(0)
    return config, cfg.fresh


def save_config(config: RunConfig, path: Path) -> None:
    """Writes everything, resolved, as YAML; the file is whole or as it was."""
    write_durably(path, [_as_yaml(config).encode()])


def read_config(path: Path) -> RunConfig:
    """What :func:`save_config` wrote.

    Raises:
        UserError: the file cannot be read, or holds a field or value that this version does not know.
    """
    content = _read_yaml(path)
    _check_names(content, path)
    parser = _parser()
    try:
        return _instantiate(parser, parser.parse_object(content, namespace=parser.get_defaults()))
    except (ValueError, argparse.ArgumentError) as error:
        raise UserError(f"{path}: {_explained(error)}") from None


def changed_fields(old: RunConfig, new: RunConfig) -> dict[str, tuple[Any, Any]]:
    """What forbids ``new`` to go on with the run of ``old``: the value before and after, by the field's name."""
    before, after = _flat(to_dict(old)), _flat(to_dict(new))
    return {
        name: (before[name], after[name])
        for name in before
        if before[name] != after[name] and name.split(".")[0] not in MAY_CHANGE
    }


def to_dict(config: RunConfig) -> dict[str, Any]:
    """The configuration as plain YAML types."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        return str(value) if isinstance(value, Path) else value

    result: dict[str, Any] = plain(dataclasses.asdict(config))
    return result


def _as_yaml(config: RunConfig) -> str:
    text: str = yaml.safe_dump(to_dict(config), sort_keys=False)
    return text


class _HelpFormatter(argparse.RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Leaves the lines of the description, which are commands, as they are."""


def _parser(program: str | None = None, description: str | None = None) -> ArgumentParser:
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(
        prog=program,
        description=description,
        usage="%(prog)s [--env TASK] [--preset NAME] [--config FILE] [--section.field VALUE ...]",  # all fill a screen
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
        exit_on_error=False,  # a mistake is one line, which the caller shows
        print_config=None,  # that of parse_command_line prints what the layers make together
    )
    parser.add_class_arguments(RunConfig, as_group=False)
    return parser


def _instantiate(parser: ArgumentParser, cfg: Namespace) -> RunConfig:
    objects = parser.instantiate(cfg)
    return RunConfig(**{f.name: getattr(objects, f.name) for f in dataclasses.fields(RunConfig)})


def _early_arguments(argv: list[str]) -> argparse.Namespace:
    """``--env``, ``--preset`` and ``--config``, which decide what the other flags are laid over."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for flag in ("--env", "--preset", "--config"):
        parser.add_argument(flag)
    return parser.parse_known_args(argv)[0]


def _read_yaml(path: str | Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold settings by name, such as `frames: 100000`")
    return content


def _check_names(layer: dict[str, Any], path: str | Path) -> None:
    """Refuses what is no setting, and what is no value: the parser takes a section that holds a number for its default.

    Raises:
        UserError: which name it is, and what it might have been meant to be.
    """

    def check(part: dict[str, Any], known: dict[str, Any], prefix: str) -> None:
        for key, value in part.items():
            if key not in known:
                raise UserError(f"{path}: unknown setting {prefix}{key}{_nearest(str(key), list(known))}")
            if isinstance(known[key], dict):
                if not isinstance(value, dict):
                    raise UserError(f"{path}: {prefix}{key} must hold settings by name, got {value}")
                check(value, known[key], f"{prefix}{key}.")
            elif value is None and known[key] is not None:
                raise UserError(f"{path}: {prefix}{key} has no value")

    check(layer, to_dict(RunConfig()), "")


def _nearest(name: str, names: list[str]) -> str:
    """The end of a sentence about an unknown name."""
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]}?" if near else ""


_KINDS = {"int": "a whole number", "float": "a finite number", "bool": "true or false", "tuple": "a list"}


def _explained(error: Exception) -> str:
    """The parser's complaint as one line in the words of this project."""
    text = " ".join(str(error).split())
    if unknown := re.fullmatch(r"unrecognized arguments: (.*)", text):
        flag = unknown[1].split()[0].split("=")[0]
        return text + _nearest(flag, [f"--{name}" for name in _flat(to_dict(RunConfig()))])
    value = re.fullmatch(r'Parser key "([\w.]+)": (.*?)(?:Got|Given) value: (.*)', text)
    if value is None:
        return text
    name, expected, given = value.groups()
    kinds = [_KINDS[kind] for kind in re.findall(r"<class '(\w+)'>", expected) if kind in _KINDS]
    choices = re.findall(r"'(\w+)'", "".join(re.findall(r"Literal\[.*?\]", expected)))
    right = " or ".join(dict.fromkeys(choices or kinds))
    return f"{name} must be {right}, got {given}" if right else text


def _preset_layer(name: str) -> dict[str, Any]:
    names = sorted(path.stem for path in PRESETS.glob("*.yaml") if path != TASKS)
    if name not in names:
        raise UserError(f"unknown preset {name}; presets are {', '.join(names)}{_nearest(name, names)}")
    return {**_read_yaml(PRESETS / f"{name}.yaml"), "preset": name}


def _task_layer(env: str, preset: str) -> dict[str, Any]:
    layer: dict[str, Any] = {}
    for rule in _read_yaml(TASKS)["rules"]:
        if any(fnmatch.fnmatchcase(env, task) for task in rule["tasks"]) and preset in rule.get("presets", [preset]):
            layer = _merge(layer, rule["set"])
    return layer


def _merge(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _flat(nested: Any, prefix: str = "") -> dict[str, Any]:
    items = vars(nested) if isinstance(nested, Namespace) else nested
    flat: dict[str, Any] = {}
    for key, value in items.items():
        if isinstance(value, (dict, Namespace)):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
