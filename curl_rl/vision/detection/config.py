"""The settings of a detector's run: typed dataclasses, in the layers of :mod:`curl_rl.runs.settings`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from curl_rl.installation import CONFIGS
from curl_rl.objectives.open_world import OpenWorldConfig
from curl_rl.pretraining.config import CheckpointConfig
from curl_rl.ranges import at_least, check_ranges, positive, positive_finite, within, zero_or_more
from curl_rl.runs.compute import DEVICE
from curl_rl.runs.console import printable
from curl_rl.runs.seeds import SEED
from curl_rl.runs.settings import Layer, Schema, preset_layer
from curl_rl.runs.trackers import Tracker
from curl_rl.vision.data import DIGITS
from curl_rl.vision.detection.detector import DetectorConfig
from curl_rl.vision.detection.scenes import ScenesConfig
from curl_rl.vision.detection.unknowns import LabelingConfig

PRESETS = CONFIGS / "detection"

MAY_CHANGE = {
    "run": "a place",
    "data": "a place: the fingerprint in the checkpoint tells whether the cut-outs are the same",
    "tasks": "a place: the hash of the content is compared",
    "device": "a place; the same numbers up to rounding",
    "compute": "how the machine is used; the same scenes",
    "checkpoint": "how often, and how many are kept",
    "log": "how often, and how much is shown",
}
"""What a resumed run may change, and why. Everything else is part of what the run is."""


@dataclass(frozen=True)
class ClusteringConfig:
    """Contrastive clustering of the regions' features (ORE, section 4.1)."""

    weight: Annotated[float, zero_or_more("no clustering")] = 0.005
    """Weight of its loss, a sum over the classes; 0, none."""

    def __post_init__(self) -> None:
        check_ranges(self, "clustering")


@dataclass(frozen=True)
class ObjectivesConfig:
    """Settings of the objective that clusters."""

    open_world: OpenWorldConfig = field(default_factory=OpenWorldConfig)
    """Margin and prototypes."""


@dataclass(frozen=True)
class EnergyConfig:
    """Telling known from unknown by the energy of a region (ORE, section 4.3)."""

    enabled: bool = True
    """Use it in detection. Every evaluation measures with and without: training does not depend on it."""
    temperature: Annotated[float, positive_finite] = 1.0
    """Temperature of the energy, when its distributions are fitted and when it decides."""
    unknowns: Literal["auto", "annotated"] = "auto"
    """The regions whose energies are those of unknown objects. auto: what is auto-labeled so. annotated: regions on the
    annotated objects of unknown classes, as in the paper. Nobody has such annotations of what is truly unknown, so the
    results are too good."""
    scenes: Annotated[int, at_least(1)] = 200
    """Scenes, of cut-outs that neither training nor evaluation sees, that the distributions are fitted on."""

    def __post_init__(self) -> None:
        check_ranges(self, "energy")


@dataclass(frozen=True)
class ExemplarsConfig:
    """Scenes kept of every class, which are repeated after the next task."""

    per_class: Annotated[int, zero_or_more("none are kept")] = 50
    """Objects of each class in them; 0, none, and nothing is repeated."""
    steps: Annotated[int, at_least(1)] = 1000
    """Optimizer steps on the exemplars of all classes, after every task but the first."""

    def __post_init__(self) -> None:
        check_ranges(self, "exemplars")


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW; its rate rises and falls along half a cosine in each phase."""

    lr: Annotated[float, positive] = 0.001
    """Peak learning rate while a task is learned."""
    later_lr: Annotated[float, positive] = 0.0003
    """Peak learning rate from the second task on, and on exemplars: smaller, to forget less."""
    weight_decay: Annotated[float, at_least(0)] = 0.0001
    """Weight decay of matrices and convolutions."""
    warmup: Annotated[float, within("[0, 1)")] = 0.1
    """Share of a phase in which the rate rises."""
    clip: Annotated[float, positive] = 10.0
    """Largest norm of a step's gradient."""

    def __post_init__(self) -> None:
        check_ranges(self, "optimizer")


@dataclass(frozen=True)
class LogConfig:
    """What a run logs."""

    every: Annotated[int, at_least(1)] = 50
    """Optimizer steps between rows of metrics."""
    images_every: Annotated[int, zero_or_more("none")] = 500
    """Optimizer steps between pictures of a batch with what is detected in it; 0, none."""
    gallery: Annotated[int, zero_or_more("none")] = 24
    """Test scenes in the picture of each evaluation; 0, none."""
    trackers: tuple[Tracker, ...] = ()
    """Experiment trackers that get the metrics as well: [wandb] or [trackio]. [default: none]"""

    def __post_init__(self) -> None:
        check_ranges(self, "log")


@dataclass(frozen=True)
class ComputeConfig:
    """How the machine is used; results do not depend on it, up to rounding."""

    threads: Annotated[int, within("[0, 4096]", "be from 0 (automatic) to 4096")] = 0
    """PyTorch's CPU threads; 0, PyTorch's default."""

    def __post_init__(self) -> None:
        check_ranges(self, "compute")


@dataclass(frozen=True)
class DetectionConfig:
    """One run: a detector that learns one task after the other."""

    data: str = DIGITS
    """Folder of cut-outs, with one subfolder per class, whose pictures have a transparent background; or digits, the
    strokes of scikit-learn's handwritten digits."""
    tasks: Path | None = None
    """YAML file with the classes of each task, and those that are in the scenes but never taught. [default: for digits
    0 to 3, then 4 to 6, and never 7 to 9]"""
    tasks_sha256: str | None = None
    """Hash of the tasks, which the run records."""
    preset: str = "digits"
    """YAML file in configs/detection/ that the settings start from: digits, or cpu for a folder."""
    steps: Annotated[int, at_least(1)] = 2000
    """Optimizer steps of each task."""
    batch_size: Annotated[int, at_least(1)] = 4
    """Scenes per step."""
    seed: Annotated[int, SEED] = 1
    """Seed of the network, the training scenes and what is learned from each; test scenes are always the same."""
    device: Annotated[str, DEVICE] = "auto"
    """Where the detector learns: auto, cpu, cuda or cuda:<n>."""
    run: Path | None = None
    """Directory of the run. [default: runs/detection-<data>/<preset>/seed<seed>]"""
    test_scenes: Annotated[int, at_least(1)] = 500
    """Scenes of an evaluation. They show the classes of all tasks, and those never taught, equally often."""
    scenes: ScenesConfig = field(default_factory=ScenesConfig)
    """Scenes."""
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    """Detector."""
    labeling: LabelingConfig = field(default_factory=LabelingConfig)
    """Auto-labeling of unknown objects."""
    clustering: ClusteringConfig = field(default_factory=ClusteringConfig)
    """Contrastive clustering."""
    objectives: ObjectivesConfig = field(default_factory=ObjectivesConfig)
    """Its settings."""
    energy: EnergyConfig = field(default_factory=EnergyConfig)
    """Energy."""
    exemplars: ExemplarsConfig = field(default_factory=ExemplarsConfig)
    """Exemplars."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimizer."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """Checkpoints."""
    log: LogConfig = field(default_factory=LogConfig)
    """Logging."""
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    """How the machine is used."""

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def directory(self) -> Path:
        """The run directory."""
        data = printable(Path(self.data).resolve().name) or "data"  # TensorBoard writes to UTF-8 paths only
        return self.run or Path("runs") / f"detection-{data}" / self.preset / f"seed{self.seed}"

    @property
    def schema(self) -> Schema[DetectionConfig]:
        """How the configuration is read and written."""
        return SCHEMA


def parse_command_line(argv: list[str], *, program: str, description: str) -> tuple[DetectionConfig, bool]:
    """Parses a command line into its configuration and whether ``--fresh`` is set.

    Raises:
        UserError: the command line, or a file that it names, cannot be parsed.
    """
    return SCHEMA.parse_command_line(argv, program=program, description=description)[:2]


def read_config(path: Path) -> DetectionConfig:
    """Reads the configuration saved with a run.

    Raises:
        UserError: the file cannot be read, or has a field or value unknown to this version.
    """
    return SCHEMA.read(path)


def _layers(preset: str) -> list[Layer]:
    return [preset_layer(preset, PRESETS)]


def _usual_selectors(named: dict[str, str]) -> dict[str, str]:
    """The default preset for a folder of cut-outs."""
    return {} if named.get("data", DIGITS) == DIGITS else {"preset": "cpu"}


SCHEMA = Schema(
    config=DetectionConfig,
    usage="%(prog)s [--data FOLDER --tasks FILE] [--preset NAME] [--config FILE] [--section.field VALUE ...]",
    selectors=("preset",),
    base=_layers,
    may_change=MAY_CHANGE,
    paths=("data", "tasks", "run"),
    identified_by={"tasks": "tasks_sha256"},
    always=(
        *("data", "preset", "steps", "batch_size", "seed", "device", "scenes", "detector", "labeling", "clustering"),
        *("objectives", "energy", "exemplars", "optimizer", "checkpoint", "log", "compute"),
    ),
    kind="detection",
    consulted=("data",),
    usual=_usual_selectors,
)
