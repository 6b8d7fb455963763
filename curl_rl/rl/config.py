"""The configuration of a run: typed dataclasses that are the command line, the YAML schema and the manual at once.

Precedence: preset < the table of tasks (configs/tasks.yaml) < ``--config`` < flags, wherever they stand in the line.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from curl_rl.objectives import registry
from curl_rl.ranges import at_least, check_ranges, within, zero_or_more
from curl_rl.rl.agent import AgentConfig
from curl_rl.rl.replay import ReplayConfig
from curl_rl.runs.compute import DEVICE
from curl_rl.runs.errors import UserError as UserError  # what reading a configuration raises
from curl_rl.runs.seeds import SEED
from curl_rl.runs.settings import Layer, Schema, merge, preset_layer, read_yaml
from curl_rl.runs.settings import to_dict as to_dict  # a configuration's own function for those who have one

PRESETS = Path(__file__).resolve().parents[2] / "configs"
TASKS = PRESETS / "tasks.yaml"

# What a resumed run may change: its budget, device, workers and logging.
MAY_CHANGE = ("frames", "device", "compute", "log", "run")

# Ten digits are what a checkpoint's name has room for.
_FRAMES = within("[1, 9999999999]", "be at least 1 and have at most ten digits")


@dataclass(frozen=True)
class EnvironmentConfig:
    """What the agent is shown of its environment."""

    size: Annotated[int, at_least(1)] = 100
    """Side of the rendered frame, in pixels."""
    stack: Annotated[int, at_least(1)] = 3
    """Consecutive frames in one observation."""
    action_repeat: Annotated[int, at_least(1)] = 4
    """Environment steps that one action lasts."""
    quality: Literal["faithful", "fast"] = "faithful"
    """Rendering: faithful, the benchmark's pixels; fast, without shadows, reflections and multisampling (in software
    about ten times faster, and slightly other pixels)."""

    def __post_init__(self) -> None:
        check_ranges(self, "environment")


@dataclass(frozen=True)
class TrainingConfig:
    """The rhythm of acting and learning."""

    random_steps: Annotated[int, at_least(1)] = 1000
    """Agent steps taken at random before learning starts (Table 3: initial steps)."""
    update_every: Annotated[int, at_least(1)] = 1
    """Agent steps from one update to the next."""
    overlap: bool = False
    """Simulate and draw each step in a process of its own while the update runs. The update then knows of all steps but
    this newest one; a run is as reproducible as without."""
    environments: Annotated[int, at_least(1)] = 1
    """Environments that step together, from 2 on each in a process of its own; then come the updates for all of these
    steps; with overlap too, all of them simulate while the updates run. On two CPU cores neither gains, because the
    update takes both. Each has an equal part of the replay, and its process takes about 250 MB."""

    def __post_init__(self) -> None:
        check_ranges(self, "training")
        if self.overlap and self.random_steps < self.environments:
            raise ValueError(
                f"training.random_steps must be at least training.environments, {self.environments}, with "
                f"training.overlap, got {self.random_steps}: the first updates run before the first steps are in"
            )


@dataclass(frozen=True)
class EvaluationConfig:
    """Episodes of the deterministic policy on an environment and seeds of their own."""

    every: Annotated[int, zero_or_more("never")] = 10_000
    """Environment frames from one evaluation to the next; 0, none at all."""
    episodes: Annotated[int, at_least(1)] = 10
    """Episodes in one evaluation."""
    video: bool = True
    """Keep the first episode of each evaluation as a GIF."""

    def __post_init__(self) -> None:
        check_ranges(self, "evaluation")


@dataclass(frozen=True)
class CheckpointConfig:
    """When a run is saved; besides, it is saved on Ctrl-C, on SIGTERM and at its end."""

    every: Annotated[int, at_least(1)] = 10_000
    """Environment frames from one checkpoint to the next."""
    keep: Annotated[int, at_least(1)] = 2
    """Newest checkpoints kept."""

    def __post_init__(self) -> None:
        check_ranges(self, "checkpoint")


@dataclass(frozen=True)
class LogConfig:
    """What is written while a run goes on."""

    every: Annotated[int, at_least(1)] = 1000
    """Environment frames from one row of learning metrics to the next."""
    images_every: Annotated[int, zero_or_more("never")] = 20_000
    """Environment frames from one picture of observations and their crops to the next; 0, none."""

    def __post_init__(self) -> None:
        check_ranges(self, "log")


@dataclass(frozen=True)
class ComputeConfig:
    """How the machine is used; nothing here changes what is learnt, up to rounding."""

    threads: Annotated[int, within("[0, 4096]", "be from 0 (automatic) to 4096")] = 0
    """CPU threads of PyTorch; 0, as many as it chooses."""
    capture: bool = False
    """Run sampling, crops and update as a CUDA graph, one for each kind of update (with the actor's step, without it),
    each of which keeps a batch and its crops in memory; needs the replay on the GPU."""

    def __post_init__(self) -> None:
        check_ranges(self, "compute")


@dataclass(frozen=True)
class RunConfig:
    """One training run."""

    env: str = "cheetah-run"
    """Task: domain-task of the DeepMind Control suite, tiny-reach, or gym:<id> for another environment that renders."""
    preset: str = "curl"
    """YAML file in configs/ that the settings start from: curl, official, cpu or sac."""
    frames: Annotated[int, _FRAMES] = 500_000
    """Budget in environment frames (agent steps times action repeat)."""
    seed: Annotated[int, SEED] = 1
    """Seed of the networks, the exploration and the environment."""
    device: Annotated[str, DEVICE] = "auto"
    """Where the agent learns: auto, cpu, cuda or cuda:<n>."""
    encoder: Path | None = None
    """What the agent's encoder starts from: the directory of a run (of an agent, or of pretraining) or an encoder's
    file. A resumed run does not read it again. [default: random weights]"""
    encoder_sha256: str | None = None
    """What the weights in --encoder must hash to; every run that starts from an encoder records it here. [default: any
    weights will do]"""
    run: Path | None = None
    """Directory of the run. [default: runs/<env>/<preset>/seed<seed>]"""
    environment: EnvironmentConfig = field(default_factory=EnvironmentConfig)
    """Pixels and actions."""
    agent: AgentConfig = field(default_factory=AgentConfig)
    """Soft Actor-Critic and its objective."""
    objectives: registry.ObjectiveConfigs = field(default_factory=registry.objective_configs)
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
        check_ranges(self)
        if self.encoder_sha256 is not None and self.encoder is None:
            raise ValueError("encoder_sha256 belongs to the weights in --encoder, which is not given")
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

    @property
    def schema(self) -> Schema[RunConfig]:
        """How it is read and written."""
        return SCHEMA


def load_preset(name: str, env: str, changes: dict[str, Any] | None = None) -> RunConfig:
    """The preset called ``name`` with the table's facts about the task ``env`` and, over both, ``changes`` by name.

    Raises:
        UserError: there is no such preset.
    """
    return SCHEMA.build({"env": env, "preset": name}, changes)


def parse_command_line(argv: list[str], *, program: str, description: str) -> tuple[RunConfig, bool]:
    """The configuration that a command line asks for, and whether it says ``--fresh``.

    ``--help`` and ``--print_config`` print and exit with code 0.

    Raises:
        UserError: the line, or a file that it names, cannot be understood.
    """
    return SCHEMA.parse_command_line(argv, program=program, description=description)


def save_config(config: RunConfig, path: Path) -> None:
    """Writes everything, resolved, as YAML; the file is whole or as it was."""
    SCHEMA.save(config, path)


def read_config(path: Path) -> RunConfig:
    """What :func:`save_config` wrote.

    Raises:
        UserError: the file cannot be read, or holds a field or value that this version does not know.
    """
    return SCHEMA.read(path)


def changed_fields(old: RunConfig, new: RunConfig) -> dict[str, tuple[Any, Any]]:
    """What forbids ``new`` to go on with the run of ``old``: the value before and after, by the field's name."""
    return SCHEMA.changed_fields(old, new)


def _layers(env: str, preset: str) -> list[Layer]:
    return [preset_layer(preset, PRESETS, (TASKS,)), _task_layer(env, preset)]


def _task_layer(env: str, preset: str) -> Layer:
    layer: Layer = {}
    for rule in read_yaml(TASKS)["rules"]:
        if any(fnmatch.fnmatchcase(env, task) for task in rule["tasks"]) and preset in rule.get("presets", [preset]):
            layer = merge(layer, rule["set"])
    return layer


SCHEMA = Schema(
    config=RunConfig,
    usage="%(prog)s [--env TASK] [--preset NAME] [--config FILE] [--section.field VALUE ...]",
    selectors=("env", "preset"),
    base=_layers,
    may_change=MAY_CHANGE,
    kind="agent",
)
