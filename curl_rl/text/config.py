"""The settings of a pretraining run on texts: typed dataclasses, in the layers of :mod:`curl_rl.runs.settings`.

Precedence: preset < ``--config`` < flags.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from curl_rl.installation import CONFIGS
from curl_rl.objectives import Modality, Need, registry
from curl_rl.pretraining.config import (
    BackboneConfig,
    CheckpointConfig,
    LogConfig,
    OptimizerConfig,
    TextBackboneConfig,
    fit_warmup,
)
from curl_rl.ranges import at_least, check_ranges, within
from curl_rl.runs.compute import DEVICE
from curl_rl.runs.console import printable
from curl_rl.runs.seeds import SEED
from curl_rl.runs.settings import Layer, Schema, preset_layer
from curl_rl.text.sentences import GRAMMAR
from curl_rl.text.tokenizer import SMALLEST

PRESETS = CONFIGS / "text"
HAS: frozenset[Need] = frozenset({"indices", "epochs", "text", "hidden"})
"""Needs of a method that sentences satisfy."""

MAY_CHANGE = {
    "run": "a place",
    "data": "a place: the fingerprint in the checkpoint tells whether the sentences are the same",
    "device": "a place; the same numbers up to rounding",
    "compute": "how the machine is used; the same batches",
    "checkpoint": "how often, and how many are kept",
    "log": "how often, and how much is shown",
}
"""What a resumed run may change, and why, as in :mod:`curl_rl.vision.config`."""


@dataclass(frozen=True)
class TokensConfig:
    """Texts as tokens."""

    length: Annotated[int, at_least(3)] = 32
    """Most tokens of a text, its start and end included; longer texts are cut."""
    vocabulary: Annotated[int, at_least(SMALLEST)] = 8192
    """Most tokens of the tokenizer that the run trains on its texts."""
    tokenizer: Path | None = None
    """Tokenizer to use instead of training one: a tokenizer.json, or a run that has one."""
    tokenizer_sha256: str | None = None
    """Hash of that tokenizer; recorded by the run, and checked if given."""

    def __post_init__(self) -> None:
        check_ranges(self, "tokens")
        if self.tokenizer_sha256 is not None and self.tokenizer is None:
            raise ValueError("tokens.tokenizer_sha256 is the hash of tokens.tokenizer, which is not set")


@dataclass(frozen=True)
class TextComputeConfig:
    """How the machine is used; results do not depend on it, up to rounding."""

    threads: Annotated[int, within("[0, 4096]", "be from 0 (automatic) to 4096")] = 0
    """PyTorch's CPU threads; 0, PyTorch's default."""

    def __post_init__(self) -> None:
        check_ranges(self, "compute")


@dataclass(frozen=True)
class TextConfig:
    """One pretraining run on texts."""

    method: registry.MethodName = "simcse"
    """Self-supervised method. Without a name, lists them."""
    data: str = GRAMMAR
    """Text file of one sentence a line, optionally with its positive and its hard negative, separated by tabs; or
    grammar, built-in sentences about shapes."""
    preset: str = "cpu"
    """YAML file in configs/text/ that the settings start from: cpu or tiny."""
    epochs: Annotated[int, at_least(1)] = 10
    """Number of passes over the sentences."""
    batch_size: Annotated[int, at_least(2)] = 64
    """Sentences per batch, over all processes; each gives as many views as the method compares."""
    seed: Annotated[int, SEED] = 1
    """Seed of the networks, their noise and the order of the sentences."""
    device: Annotated[str, DEVICE] = "auto"
    """Where the network learns: auto, cpu, cuda or cuda:<n>."""
    run: Path | None = None
    """Directory of the run. [default: runs/text-<data>/<method>-<preset>/seed<seed>]"""
    tokens: TokensConfig = field(default_factory=TokensConfig)
    """Texts as tokens."""
    encoder: TextBackboneConfig = field(default_factory=TextBackboneConfig)
    """Network."""
    objectives: registry.ObjectiveConfigs = field(default_factory=registry.objective_configs)
    """Settings of each method."""
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig("adamw", lr=5e-4, lr_scaling="none"))
    """Optimizer."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """Checkpoints."""
    log: LogConfig = field(default_factory=LogConfig)
    """Logging."""
    compute: TextComputeConfig = field(default_factory=TextComputeConfig)
    """How the machine is used."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.optimizer.warmup_epochs >= self.epochs:
            raise ValueError(
                f"optimizer.warmup_epochs must be below epochs {self.epochs}, got {self.optimizer.warmup_epochs:g}"
            )

    @property
    def directory(self) -> Path:
        """The run directory."""
        data = printable(Path(self.data).resolve().stem) or "data"  # TensorBoard writes to UTF-8 paths only
        return self.run or Path("runs") / f"text-{data}" / f"{self.method}-{self.preset}" / f"seed{self.seed}"

    @property
    def encoders(self) -> dict[Modality, BackboneConfig | TextBackboneConfig]:
        """The network, by what it reads."""
        return {"text": self.encoder}

    @property
    def schema(self) -> Schema[TextConfig]:
        """How the configuration is read and written."""
        return SCHEMA


def load_preset(name: str, method: str = "simcse", changes: Layer | None = None) -> TextConfig:
    """The preset ``name`` for a method, with ``changes``, by name, applied.

    Raises:
        UserError: the preset does not exist.
    """
    return SCHEMA.build({"method": method, "preset": name}, changes)


def parse_command_line(argv: list[str], *, program: str, description: str) -> tuple[TextConfig, bool]:
    """Parses a command line into its configuration and whether ``--fresh`` is set.

    Raises:
        UserError: the command line, or a file that it names, cannot be parsed.
    """
    return SCHEMA.parse_command_line(argv, program=program, description=description)[:2]


def read_config(path: Path) -> TextConfig:
    """Reads the configuration saved with a run.

    Raises:
        UserError: the file cannot be read, or has a field or value unknown to this version.
    """
    return SCHEMA.read(path)


def _layers(method: str, preset: str) -> list[Layer]:
    return [preset_layer(preset, PRESETS)]


def methods_of_texts() -> dict[str, str]:
    """The methods that learn from texts, of images with captions too, each with a line that describes it."""
    lines = registry.summaries(HAS)
    return {name: lines[name] for name, method in registry.METHODS.items() if "text" in method.objective.needs}


SCHEMA = Schema(
    config=TextConfig,
    usage="%(prog)s [--method NAME] [--data FILE] [--preset NAME] [--config FILE] [--section.field VALUE ...]",
    selectors=("method", "preset"),
    base=_layers,
    may_change=MAY_CHANGE,
    paths=("data", "run", "tokens.tokenizer"),
    identified_by={"tokens.tokenizer": "tokens.tokenizer_sha256"},
    registered=("objectives",),
    fit=fit_warmup,
    listed={"method": methods_of_texts},
    taken={"method": methods_of_texts},
    always=(
        *("method", "data", "preset", "epochs", "batch_size", "seed", "device", "tokens", "encoder", "objectives"),
        *("optimizer", "checkpoint", "log", "compute"),
    ),
    methods=lambda config: (config.method,),
    kind="text",
)
