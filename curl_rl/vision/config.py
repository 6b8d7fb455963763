"""The settings of a pretraining run: typed dataclasses, in the layers of :mod:`curl_rl.runs.settings`.

Precedence: preset < the table of methods (configs/vision/methods.yaml) < ``--config`` < flags.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, get_args

import torch

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
from curl_rl.ranges import at_least, check_ranges, positive, within, zero_or_more
from curl_rl.runs.compute import DEVICE
from curl_rl.runs.console import printable
from curl_rl.runs.seeds import SEED
from curl_rl.runs.settings import Layer, Schema, merge, preset_layer, read_yaml
from curl_rl.vision.data import DIGITS
from curl_rl.vision.data.image_sets import SmallImages, Storage
from curl_rl.vision.views import AugmentConfig

PRESETS = CONFIGS / "vision"
METHODS = PRESETS / "methods.yaml"
OFFERED: frozenset[Need] = frozenset(get_args(Need)) - {"text"}
"""Needs of a method that some images or recorded frames satisfy."""

MAY_CHANGE = {
    "run": "a place",
    "data": "a place: the fingerprint in the checkpoint tells whether the images are the same",
    "device": "a place; the same numbers up to rounding",
    "compute": "how the machine is used; the same batches",
    "frames.test_every": "how often; a measurement changes nothing that training depends on",
    "knn.every": "how often; likewise",
    "checkpoint": "how often, and how many are kept",
    "log": "how often, and how much is shown",
}
"""What a resumed run may change, and why. Everything else is part of what the run is: it changes the weights, the data
or what the results mean. ``epochs`` too: the cosines of learning rate and momentum end with the last epoch, so an
extended run would differ from one that was planned to that length. docs/resuming.md has this table for users."""


@dataclass(frozen=True)
class FramesConfig:
    """How recorded frames are presented, if the data are recorded frames."""

    stack: Annotated[int, at_least(1)] = 3
    """Frames per observation, as the agent will see them."""
    positive_offset: Annotated[int, zero_or_more("the same observation")] = 0
    """Agent steps from the first view's observation to the second's, clipped to the episode's end (3 in ATC, arXiv
    2009.08319); 0, both views show the same observation."""
    test_every: Annotated[int, zero_or_more("never")] = 1
    """Epochs between measurements on the held-out episodes, plus one after the last epoch; 0, none."""

    def __post_init__(self) -> None:
        check_ranges(self, "frames")


@dataclass(frozen=True)
class KNNConfig:
    """Weighted nearest neighbors on the test images during training, if the data have labels and test images."""

    every: Annotated[int, zero_or_more("never")] = 10
    """Epochs between evaluations, plus one after the last epoch; 0, none."""
    k: Annotated[int, at_least(1)] = 200
    """Neighbors that vote; all images, if there are fewer."""
    temperature: Annotated[float, positive] = 0.1
    """Temperature of their votes."""

    def __post_init__(self) -> None:
        check_ranges(self, "knn")


@dataclass(frozen=True)
class ComputeConfig:
    """How the machine is used; results do not depend on it, up to rounding."""

    threads: Annotated[int, within("[0, 4096]", "be from 0 (automatic) to 4096")] = 0
    """PyTorch's CPU threads; 0, PyTorch's default."""
    storage: Storage = "auto"
    """memory: keep all images on the device. stream: decode them in every epoch. auto: memory if they fit."""
    workers: Annotated[int | None, at_least(0)] = None
    """Decoding processes when streaming. [default: one per core, less one]"""

    def __post_init__(self) -> None:
        check_ranges(self, "compute")


@dataclass(frozen=True)
class VisionConfig:
    """One pretraining run."""

    method: registry.MethodName = "simclr"
    """Self-supervised method. Without a name, lists them."""
    data: str = DIGITS
    """Folder of images, flat or with one subfolder per class, with or without train/ and test/; or folder of frames
    recorded by scripts/record_frames.py; or digits, a built-in set."""
    preset: str = "digits"
    """YAML file in configs/vision/ that the settings start from: cifar10, cpu, digits or frames. A command line that
    names a folder but no preset uses cifar10 on a GPU, cpu otherwise."""
    epochs: Annotated[int, at_least(1)] = 100
    """Number of passes over the images."""
    batch_size: Annotated[int, at_least(2)] = 256
    """Images per batch, over all processes; each gives as many views as the method compares."""
    image_size: Annotated[int | None, at_least(1)] = None
    """Side that images are scaled to on loading, in pixels. [default: their own, if it is the same for all]"""
    small_images: SmallImages = "auto"
    """Images smaller than image_size. upscale: scale them up, as torchvision's crops do. skip: leave them out. refuse:
    stop before training. auto: upscale, if they are fewer than half of the images, else refuse."""
    seed: Annotated[int, SEED] = 1
    """Seed of the networks, the order of the images and the augmentation."""
    device: Annotated[str, DEVICE] = "auto"
    """Where the network learns: auto, cpu, cuda or cuda:<n>."""
    run: Path | None = None
    """Directory of the run. [default: runs/vision-<data>/<method>-<preset>/seed<seed>]"""
    frames: FramesConfig = field(default_factory=FramesConfig)
    """Recorded frames."""
    encoder: BackboneConfig = field(default_factory=BackboneConfig)
    """Network."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Views of an image."""
    objectives: registry.ObjectiveConfigs = field(default_factory=registry.objective_configs)
    """Settings of each method."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimizer."""
    knn: KNNConfig = field(default_factory=KNNConfig)
    """Evaluation during the run."""
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

    @property
    def directory(self) -> Path:
        """The run directory."""
        data = printable(Path(self.data).resolve().name) or "data"  # TensorBoard writes to UTF-8 paths only
        return self.run or Path("runs") / f"vision-{data}" / f"{self.method}-{self.preset}" / f"seed{self.seed}"

    @property
    def encoders(self) -> dict[Modality, BackboneConfig | TextBackboneConfig]:
        """The network, by what it sees."""
        return {"image": self.encoder}

    @property
    def schema(self) -> Schema[VisionConfig]:
        """How the configuration is read and written."""
        return SCHEMA


def load_preset(name: str, method: str, changes: Layer | None = None) -> VisionConfig:
    """The preset ``name``, with the method table's settings for ``method`` and then ``changes``, by name, applied.

    Raises:
        UserError: the preset does not exist.
    """
    return SCHEMA.build({"method": method, "preset": name}, changes)


def parse_command_line(argv: list[str], *, program: str, description: str) -> tuple[VisionConfig, bool]:
    """Parses a command line into its configuration and whether ``--fresh`` is set.

    Raises:
        UserError: the command line, or a file that it names, cannot be parsed.
    """
    return SCHEMA.parse_command_line(argv, program=program, description=description)[:2]


def read_config(path: Path) -> VisionConfig:
    """Reads the configuration saved with a run.

    Raises:
        UserError: the file cannot be read, or has a field or value unknown to this version.
    """
    return SCHEMA.read(path)


def _layers(method: str, preset: str) -> list[Layer]:
    return [preset_layer(preset, PRESETS, (METHODS,)), _method_layer(method, preset)]


def _method_layer(method: str, preset: str) -> Layer:
    layer: Layer = {}
    rules: list[dict[str, Any]] = read_yaml(METHODS)["rules"]
    for rule in rules:
        if method in rule["methods"] and preset in rule.get("presets", [preset]):
            layer = merge(layer, rule["set"])
    return layer


def _usual_selectors(named: dict[str, str]) -> dict[str, str]:
    """The default preset for a folder of images: cifar10 on a GPU, the faster cpu otherwise."""
    if named.get("data", DIGITS) == DIGITS:
        return {}
    device = named.get("device", "auto")
    on_gpu = torch.cuda.is_available() if device == "auto" else device.startswith("cuda")
    return {"preset": "cifar10" if on_gpu else "cpu"}


SCHEMA = Schema(
    config=VisionConfig,
    usage="%(prog)s [--method NAME] [--data FOLDER] [--preset NAME] [--config FILE] [--section.field VALUE ...]",
    selectors=("method", "preset"),
    base=_layers,
    may_change=MAY_CHANGE,
    paths=("data", "run", "augment.schedule"),
    identified_by={"augment.schedule": "augment.schedule_sha256"},
    fit=fit_warmup,
    registered=("objectives",),
    listed={"method": lambda: registry.summaries(OFFERED)},
    taken={"method": lambda: registry.usable(OFFERED)},
    always=(
        *("method", "data", "preset", "epochs", "batch_size", "seed", "device", "encoder", "augment", "objectives"),
        *("optimizer", "knn", "checkpoint", "log", "compute"),
    ),
    methods=lambda config: (config.method,),
    kind="pretraining",
    consulted=("data", "device"),
    usual=_usual_selectors,
)
