"""The configuration of a run: typed dataclasses that define the command line, the YAML schema and the manual.

Precedence: preset < the table of tasks (configs/tasks.yaml) < ``--config`` < flags, in any order on the command line.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from curl_rl.installation import CONFIGS
from curl_rl.objectives import registry
from curl_rl.objectives.composite import methods_in
from curl_rl.ranges import at_least, check_ranges, positive_finite, within, zero_or_more
from curl_rl.rl.agent import REPLAY, AgentConfig
from curl_rl.rl.replay import ReplayConfig
from curl_rl.runs.compute import DEVICE
from curl_rl.runs.errors import UserError as UserError  # raised when a configuration cannot be read
from curl_rl.runs.seeds import SEED
from curl_rl.runs.settings import Layer, Schema, merge, preset_layer, read_yaml
from curl_rl.runs.settings import to_dict as to_dict  # re-exported for callers that hold a configuration
from curl_rl.runs.trackers import Tracker

PRESETS = CONFIGS
TASKS = PRESETS / "tasks.yaml"

MAY_CHANGE = {
    "frames": "the budget: a longer run begins like a shorter one",
    "run": "a place",
    "device": "a place; the same numbers up to rounding, though a GPU draws other random numbers than a CPU",
    "compute": "how the machine is used; the same numbers up to rounding",
    "training.step_timeout": "how long to wait; the same numbers",
    "replay.storage": "a place; the same frames, though a GPU samples others",
    "evaluation.every": "how often; an evaluation changes nothing that training depends on",
    "evaluation.video": "how much is kept",
    "checkpoint": "how often, and how many are kept",
    "log": "how often",
}
"""What a resumed run may change, and why. Everything else is part of what the run is: it changes the weights, the data
or what the results mean, such as the episodes that an evaluation is the mean of. The encoder to start from may move to
another path, see ``SCHEMA``. docs/resuming.md has this table for users."""

# A checkpoint's name has room for ten digits.
_FRAMES = within("[1, 9999999999]", "be at least 1 and have at most ten digits")


@dataclass(frozen=True)
class EnvironmentConfig:
    """The agent's view of its environment."""

    size: Annotated[int, at_least(1)] = 100
    """Side of the rendered frame, in pixels."""
    stack: Annotated[int, at_least(1)] = 3
    """Consecutive frames in one observation."""
    action_repeat: Annotated[int, at_least(1)] = 4
    """Environment steps per action."""
    quality: Literal["faithful", "fast"] = "faithful"
    """Rendering: faithful, the benchmark's pixels; fast, without shadows, reflections and multisampling (about ten
    times faster in software, with slightly different pixels)."""
    camera: int | str | None = None
    """Camera that draws the frames: its number or name, in tasks of DeepMind Control and MuJoCo tasks of gymnasium. Any
    other value lists the task's cameras. [default: the task's usual one]"""
    proprioception: Literal["all"] | tuple[str, ...] = ()
    """Entries of the task's own observation that actor and critics get beside the pixels, such as [position,velocity];
    all: every entry, which may include the state of objects. An unknown name lists the task's entries. Encoder and
    objective see pixels only. [default: pixels alone]"""
    max_episode_steps: Annotated[int | None, at_least(1)] = None
    """Environment steps after which an episode is truncated at the latest, in training and in evaluation. Needed by an
    environment whose episodes may never end. [default: the environment's own limit, if it has one]"""

    def __post_init__(self) -> None:
        check_ranges(self, "environment")


@dataclass(frozen=True)
class TrainingConfig:
    """The schedule of acting and learning."""

    random_steps: Annotated[int, at_least(1)] = 1000
    """Agent steps taken at random before learning starts (Table 3: initial steps)."""
    update_every: Annotated[int, at_least(1)] = 1
    """Agent steps between updates."""
    overlap: bool = False
    """Simulate and render each step in a separate process while the update runs. The update then samples all steps but
    the newest; the run stays reproducible."""
    environments: Annotated[int, at_least(1)] = 1
    """Environments that step together, each in its own process if there are 2 or more. The updates for all these steps
    follow or, with overlap, run during the simulation. Neither helps on two CPU cores, because the update uses both.
    Each environment has an equal share of the replay, and its process takes about 250 MB."""
    step_timeout: Annotated[float | None, positive_finite] = None
    """Seconds after which an environment that has not returned from a step or a reset ends the run, which then resumes
    from where it was saved; null: never. Making it may take a minute longer. With a limit all environments run in
    processes of their own, which alone can be ended at any moment."""

    def __post_init__(self) -> None:
        check_ranges(self, "training")
        if self.overlap and self.random_steps < self.environments:
            raise ValueError(
                f"training.random_steps must be at least training.environments, {self.environments}, with "
                f"training.overlap, got {self.random_steps}: the first updates run before the first steps arrive"
            )


@dataclass(frozen=True)
class EvaluationConfig:
    """Episodes of the deterministic policy, on a separate environment with separate seeds."""

    every: Annotated[int, zero_or_more("never")] = 10_000
    """Environment frames between evaluations; 0: no evaluation."""
    episodes: Annotated[int, at_least(1)] = 10
    """Episodes per evaluation."""
    video: bool = True
    """Keep the first episode of each evaluation as a GIF, drawn at 256 pixels next to what the agent sees."""

    def __post_init__(self) -> None:
        check_ranges(self, "evaluation")


@dataclass(frozen=True)
class CheckpointConfig:
    """When to save a run; it is also saved on Ctrl-C, on SIGTERM and at its end."""

    every: Annotated[int, at_least(1)] = 10_000
    """Environment frames between checkpoints."""
    keep: Annotated[int, at_least(1)] = 2
    """Number of newest checkpoints to keep."""

    def __post_init__(self) -> None:
        check_ranges(self, "checkpoint")


@dataclass(frozen=True)
class LogConfig:
    """Logging during a run."""

    every: Annotated[int, at_least(1)] = 1000
    """Environment frames between rows of learning metrics."""
    images_every: Annotated[int, zero_or_more("never")] = 20_000
    """Environment frames between images of observations and their crops; 0: no images."""
    trackers: tuple[Tracker, ...] = ()
    """Experiment trackers that get the metrics as well: [wandb] for Weights & Biases, [trackio] for trackio, which
    keeps them on this machine. [default: none]"""

    def __post_init__(self) -> None:
        check_ranges(self, "log")


@dataclass(frozen=True)
class ComputeConfig:
    """Use of the machine; nothing here changes the results, up to rounding."""

    threads: Annotated[int, within("[0, 4096]", "be from 0 (automatic) to 4096")] = 0
    """CPU threads of PyTorch; 0: PyTorch's default."""
    capture: bool = False
    """Run sampling, crops and update as a CUDA graph, one for each kind of update (with or without the actor's step).
    Each graph keeps a batch and its crops in memory; needs the replay on the GPU."""

    def __post_init__(self) -> None:
        check_ranges(self, "compute")


@dataclass(frozen=True)
class RunConfig:
    """One training run."""

    env: str = "cheetah-run"
    """Task: domain-task of the DeepMind Control suite, tiny-reach, gym:<id> for another environment that renders, or
    gym:<module>:<id> with the module that registers it, which may be in the current folder."""
    preset: str = "curl"
    """YAML file in configs/ with the base settings: curl, official, cpu or sac."""
    frames: Annotated[int, _FRAMES] = 500_000
    """Budget in environment frames (agent steps times action repeat)."""
    seed: Annotated[int, SEED] = 1
    """Seed of the networks, the exploration and the environment."""
    device: Annotated[str, DEVICE] = "auto"
    """Device that trains the agent: auto, cpu, cuda or cuda:<n>."""
    encoder: Path | None = None
    """Trained encoder to start from: the directory of a run (of an agent or of pretraining) or an encoder file. A
    resumed run does not read it again. [default: random weights]"""
    encoder_sha256: str | None = None
    """Required hash of the weights in --encoder; every run that starts from an encoder records it here. [default: any
    weights]"""
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
    """Schedule of acting and learning."""
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
            raise ValueError("encoder_sha256 is the hash of the weights in --encoder, which is not set")
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
        """The run's directory."""
        task = self.env.replace(":", "_").replace("/", "_")
        return self.run or Path("runs") / task / self.preset / f"seed{self.seed}"

    @property
    def schema(self) -> Schema[RunConfig]:
        """The schema that reads and writes it."""
        return SCHEMA


def load_preset(name: str, env: str, changes: dict[str, Any] | None = None) -> RunConfig:
    """The preset ``name`` with the task table's settings for ``env``, both overridden by ``changes``.

    Raises:
        UserError: the preset does not exist.
    """
    return SCHEMA.build({"env": env, "preset": name}, changes)


def parse_command_line(argv: list[str], *, program: str, description: str) -> tuple[RunConfig, bool, bool]:
    """The configuration given by a command line, and its flags ``--fresh`` and ``--salvage``.

    ``--help`` and ``--print_config`` print and exit with code 0.

    Raises:
        UserError: the command line, or a file it names, is invalid.
    """
    return SCHEMA.parse_command_line(argv, program=program, description=description)


def save_config(config: RunConfig, path: Path) -> None:
    """Writes the resolved configuration as YAML, atomically."""
    SCHEMA.save(config, path)


def read_config(path: Path) -> RunConfig:
    """Reads a file written by :func:`save_config`.

    Raises:
        UserError: the file cannot be read, or has a field or value unknown to this version.
    """
    return SCHEMA.read(path)


def changed_fields(old: RunConfig, new: RunConfig) -> dict[str, tuple[Any, Any]]:
    """The changes that keep ``new`` from resuming the run of ``old``: old and new value by field name."""
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
    paths=("encoder", "run"),
    identified_by={"encoder": "encoder_sha256"},
    registered=("objectives",),
    listed={
        "agent.objective": lambda: {
            **registry.summaries(REPLAY.has),
            "none": "No contrastive loss: plain SAC on crops.",
            "A+B": "Several at once, each with its --agent.objective_weight, such as curl+cpc.",
        }
    },
    taken={"agent.objective": lambda: (*registry.usable(REPLAY.has), "none")},
    salvages=True,
    always=(
        *("env", "preset", "frames", "seed", "device", "environment", "agent", "objectives", "replay", "training"),
        *("evaluation", "checkpoint", "log", "compute"),
    ),
    methods=lambda config: methods_in(config.agent.objective),
    kind="agent",
)
