"""The settings of a pretraining run on images with captions, in the layers of :mod:`curl_rl.runs.settings`.

Precedence: preset < ``--config`` < flags.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from curl_rl.installation import CONFIGS
from curl_rl.objectives import Modality, ViewSpec, registry
from curl_rl.pretraining.config import (
    BackboneConfig,
    CheckpointConfig,
    LogConfig,
    OptimizerConfig,
    TextBackboneConfig,
    fit_warmup,
)
from curl_rl.ranges import at_least, check_ranges
from curl_rl.runs.compute import DEVICE
from curl_rl.runs.console import printable
from curl_rl.runs.errors import UserError
from curl_rl.runs.seeds import SEED
from curl_rl.runs.settings import Layer, Schema, preset_layer
from curl_rl.text.config import MAY_CHANGE, TokensConfig, methods_of_texts
from curl_rl.text.data.pairs import SHAPES
from curl_rl.text.data.tables import CAPTIONS
from curl_rl.vision.config import ComputeConfig
from curl_rl.vision.data.image_sets import SmallImages
from curl_rl.vision.views import AugmentConfig

PRESETS = CONFIGS / "pairs"


def methods_of_pairs() -> dict[str, str]:
    """The methods that compare images with texts, each with a line that describes it."""
    return {
        name: method.summary
        for name, method in registry.METHODS.items()
        if "text" in method.objective.needs and ViewSpec(0) in getattr(method.objective, "online_views", ())
    }


@dataclass(frozen=True)
class PairConfig:
    """One pretraining run on images with captions."""

    method: registry.MethodName = "clip"
    """Self-supervised method. Without a name, lists them."""
    data: str = SHAPES
    """Folder of images, flat or with one subfolder per class, with or without train/ and test/, and a table of captions
    in it; or shapes, a built-in set."""
    preset: str = "cpu"
    """YAML file in configs/pairs/ that the settings start from: cpu or tiny."""
    captions: str = CAPTIONS
    """Name of the table of captions in the folder, such as captions.es.tsv."""
    epochs: Annotated[int, at_least(1)] = 60
    """Number of passes over the images."""
    batch_size: Annotated[int, at_least(2)] = 256
    """Images per batch, over all processes, each with one of its captions."""
    image_size: Annotated[int | None, at_least(1)] = None
    """Side that images are scaled to on loading, in pixels. [default: their own, if it is the same for all]"""
    small_images: SmallImages = "auto"
    """Images smaller than image_size. upscale: scale them up. skip: leave them out. refuse: stop before training. auto:
    upscale, if they are fewer than half of the images, else refuse."""
    seed: Annotated[int, SEED] = 1
    """Seed of the networks, their noise, the order of the images, their views and the choice of captions."""
    device: Annotated[str, DEVICE] = "auto"
    """Where the networks learn: auto, cpu, cuda or cuda:<n>."""
    run: Path | None = None
    """Directory of the run. [default: runs/pairs-<data>/<method>-<preset>/seed<seed>]"""
    tokens: TokensConfig = field(default_factory=TokensConfig)
    """Captions as tokens."""
    encoder: BackboneConfig = field(default_factory=BackboneConfig)
    """Network of the images."""
    text_encoder: TextBackboneConfig = field(default_factory=TextBackboneConfig)
    """Network of the captions."""
    augment: AugmentConfig = field(default_factory=lambda: AugmentConfig(views=1))
    """The view of an image."""
    objectives: registry.ObjectiveConfigs = field(default_factory=registry.objective_configs)
    """Settings of each method."""
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig("adamw", lr=1e-3, lr_scaling="none"))
    """Optimizer."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """Checkpoints."""
    log: LogConfig = field(default_factory=LogConfig)
    """Logging."""
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    """How the machine is used."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.optimizer.warmup_epochs >= self.epochs:
            raise ValueError(
                f"optimizer.warmup_epochs must be below epochs {self.epochs}, got {self.optimizer.warmup_epochs:g}"
            )
        if self.augment.policy == "pba":
            raise ValueError(
                "augment.policy must be none, randaugment or autoaugment for images with captions, got pba"
            )
        if Path(self.captions).name != self.captions:
            raise ValueError(f"captions must be the name of a file in the folder, got {self.captions}")

    @property
    def directory(self) -> Path:
        """The run directory."""
        data = printable(Path(self.data).resolve().name) or "data"  # TensorBoard writes to UTF-8 paths only
        return self.run or Path("runs") / f"pairs-{data}" / f"{self.method}-{self.preset}" / f"seed{self.seed}"

    @property
    def encoders(self) -> dict[Modality, BackboneConfig | TextBackboneConfig]:
        """The networks, by what they see."""
        return {"image": self.encoder, "text": self.text_encoder}

    @property
    def schema(self) -> Schema[PairConfig]:
        """How the configuration is read and written."""
        return SCHEMA


def load_preset(name: str, method: str = "clip", changes: Layer | None = None) -> PairConfig:
    """The preset ``name`` for a method, with ``changes``, by name, applied.

    Raises:
        UserError: the preset does not exist.
    """
    return SCHEMA.build({"method": method, "preset": name}, changes)


def parse_command_line(argv: list[str], *, program: str, description: str) -> tuple[PairConfig, bool]:
    """Parses a command line into its configuration and whether ``--fresh`` is set.

    Raises:
        UserError: the command line, or a file that it names, cannot be parsed.
    """
    try:
        return SCHEMA.parse_command_line(argv, program=program, description=description)[:2]
    except UserError as error:
        # The checks of a Transformer name it as a run on sentences does.
        raise UserError(re.sub(r"(?<![-.\w])encoder\.text\b", "text_encoder.text", str(error))) from None


def read_config(path: Path) -> PairConfig:
    """Reads the configuration saved with a run.

    Raises:
        UserError: the file cannot be read, or has a field or value unknown to this version.
    """
    return SCHEMA.read(path)


def _layers(method: str, preset: str) -> list[Layer]:
    return [preset_layer(preset, PRESETS)]


SCHEMA = Schema(
    config=PairConfig,
    usage="%(prog)s --method NAME [--data FOLDER] [--preset NAME] [--config FILE] [--section.field VALUE ...]",
    selectors=("method", "preset"),
    base=_layers,
    may_change=MAY_CHANGE,
    paths=("data", "run", "tokens.tokenizer"),
    identified_by={"tokens.tokenizer": "tokens.tokenizer_sha256"},
    registered=("objectives",),
    fit=fit_warmup,
    listed={"method": methods_of_pairs},
    taken={"method": methods_of_texts},
    always=(
        *("method", "data", "preset", "captions", "epochs", "batch_size", "seed", "device", "tokens", "encoder"),
        *("text_encoder", "augment", "objectives", "optimizer", "checkpoint", "log", "compute"),
    ),
    methods=lambda config: (config.method,),
    kind="pairs",
)
