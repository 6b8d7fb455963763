"""The settings of a pretraining run: typed dataclasses, in the layers of :mod:`curl_rl.runs.settings`.

Precedence: preset < the table of methods (configs/vision/methods.yaml) < ``--config`` < flags.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch

from curl_rl.objectives import registry
from curl_rl.pretraining.config import BackboneConfig, CheckpointConfig, LogConfig, OptimizerConfig
from curl_rl.ranges import at_least, check_ranges, positive, within, zero_or_more
from curl_rl.runs.compute import DEVICE
from curl_rl.runs.seeds import SEED
from curl_rl.runs.settings import Layer, Schema, merge, preset_layer, read_yaml
from curl_rl.vision.data import DIGITS
from curl_rl.vision.data.image_sets import Storage
from curl_rl.vision.views import AugmentConfig

PRESETS = Path(__file__).resolve().parents[2] / "configs" / "vision"
METHODS = PRESETS / "methods.yaml"

# What a resumed run may change. Not its epochs: the learning rate and the momentum run along cosines that end with the
# last one, so a run that is taken further is not the run that was planned so long.
MAY_CHANGE = ("device", "compute", "log", "run")


@dataclass(frozen=True)
class FramesConfig:
    """How recorded frames are shown, where the data are some."""

    stack: Annotated[int, at_least(1)] = 3
    """Frames in one observation, as the agent will have it."""
    positive_offset: Annotated[int, zero_or_more("the same observation")] = 0
    """Agent steps by which the second view's observation is later than the first's, at most to the episode's end (3 in
    ATC, arXiv 2009.08319); 0, both views are of one observation."""
    test_every: Annotated[int, zero_or_more("never")] = 1
    """Epochs from one measurement on the held-out episodes to the next, and after the last; 0, none."""

    def __post_init__(self) -> None:
        check_ranges(self, "frames")


@dataclass(frozen=True)
class KNNConfig:
    """Weighted nearest neighbours on the test images, while the run goes on; where the data have labels and a test."""

    every: Annotated[int, zero_or_more("never")] = 10
    """Epochs from one evaluation to the next, and after the last; 0, none."""
    k: Annotated[int, at_least(1)] = 200
    """Neighbours that vote; all images, where there are fewer."""
    temperature: Annotated[float, positive] = 0.1
    """Of their votes."""

    def __post_init__(self) -> None:
        check_ranges(self, "knn")


@dataclass(frozen=True)
class ComputeConfig:
    """How the machine is used; nothing here changes what is learnt, up to rounding."""

    threads: Annotated[int, within("[0, 4096]", "be from 0 (automatic) to 4096")] = 0
    """CPU threads of PyTorch; 0, as many as it chooses."""
    storage: Storage = "auto"
    """memory: all images on the device. stream: decoded anew in every epoch. auto: memory where they fit."""
    workers: Annotated[int | None, at_least(0)] = None
    """Decoding processes of a stream. [default: one per core, less one]"""

    def __post_init__(self) -> None:
        check_ranges(self, "compute")


@dataclass(frozen=True)
class VisionConfig:
    """One pretraining run."""

    method: registry.MethodName = "simclr"
    """Self-supervised method."""
    data: str = DIGITS
    """Folder of images, flat or one subfolder to a class, with or without train/ and test/; or of frames that
    scripts/record_frames.py has recorded; or digits, a built-in set."""
    preset: str = "digits"
    """YAML file in configs/vision/ that the settings start from: cifar10, cpu, digits or frames. A command line that
    names a folder and no preset takes cifar10 where the network learns on a GPU, cpu where it does not."""
    epochs: Annotated[int, at_least(1)] = 100
    """Times that every image is seen."""
    batch_size: Annotated[int, at_least(2)] = 256
    """Images in a batch, of all processes together; each gives as many views as the method compares."""
    image_size: Annotated[int | None, at_least(1)] = None
    """Side to which images are scaled on loading, in pixels. [default: their own, where they all have the same]"""
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
    """Evaluation in mid-run."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """Checkpoints."""
    log: LogConfig = field(default_factory=LogConfig)
    """Logging."""
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    """Use of the machine."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.optimizer.warmup_epochs >= self.epochs:
            raise ValueError(
                f"optimizer.warmup_epochs must be below epochs {self.epochs}, got {self.optimizer.warmup_epochs:g}"
            )

    @property
    def directory(self) -> Path:
        """Where the run lives."""
        data = Path(self.data).resolve().name or "data"
        return self.run or Path("runs") / f"vision-{data}" / f"{self.method}-{self.preset}" / f"seed{self.seed}"

    @property
    def schema(self) -> Schema[VisionConfig]:
        """How it is read and written."""
        return SCHEMA


def load_preset(name: str, method: str, changes: Layer | None = None) -> VisionConfig:
    """The preset called ``name`` with the table's facts about ``method`` and, over both, ``changes`` by name.

    Raises:
        UserError: there is no such preset.
    """
    return SCHEMA.build({"method": method, "preset": name}, changes)


def parse_command_line(argv: list[str], *, program: str, description: str) -> tuple[VisionConfig, bool]:
    """The configuration that a command line asks for, and whether it says ``--fresh``.

    Raises:
        UserError: the line, or a file that it names, cannot be understood.
    """
    return SCHEMA.parse_command_line(argv, program=program, description=description)


def read_config(path: Path) -> VisionConfig:
    """The configuration that a run has saved.

    Raises:
        UserError: the file cannot be read, or holds a field or value that this version does not know.
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
    """The preset for a folder of images, which says nothing about how long one is ready to wait but by the device."""
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
    kind="pretraining",
    consulted=("data", "device"),
    usual=_usual_selectors,
)
