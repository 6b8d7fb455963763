"""Settings shared by every kind of pretraining: network, optimizer, checkpoints and logging."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, Protocol

from curl_rl.encoders import EncoderConfig, Precision, TextEncoderConfig
from curl_rl.encoders.resnet import ResNetConfig
from curl_rl.objectives import Modality, registry
from curl_rl.optim.schedules import LearningRateScaling
from curl_rl.pretraining.distributed import is_first
from curl_rl.ranges import at_least, check_ranges, positive, within, zero_or_more
from curl_rl.runs.console import say
from curl_rl.runs.settings import Fitting, Layer
from curl_rl.runs.trackers import Tracker

WARMUP = "optimizer.warmup_epochs"


@dataclass(frozen=True)
class BackboneConfig:
    """The network to train on images."""

    kind: Literal["resnet", "pixel"] = "resnet"
    """resnet: a ResNet. pixel: the agent's encoder, small and fast."""
    resnet: ResNetConfig = field(default_factory=lambda: ResNetConfig(stem="small"))
    """Shape of a ResNet. batch_norm_splits counts parts of the whole batch: each of W processes takes 1/W of them; with
    several processes, 1 means synchronized batch norm."""
    split: Literal["none", "lab", "ycbcr"] = "none"
    """Split the image into lightness and color, with a ResNet for each, in L*a*b* or YCbCr, for cmc. none: one ResNet
    for the whole image."""
    patch: Annotated[int, zero_or_more("whole images")] = 0
    """Side of the patches that a ResNet with norm group encodes one by one, in pixels, for cpc of kind patches; they
    overlap by half. 0: it encodes whole images."""
    pixel: EncoderConfig = field(default_factory=EncoderConfig)
    """Shape of a pixel encoder."""
    precision: Precision | Literal["auto"] = "auto"
    """Precision the network computes in; weights and losses stay float32. auto: bfloat16 where it is fast."""

    def __post_init__(self) -> None:
        check_ranges(self, "encoder")
        if self.split != "none" and self.kind != "resnet":
            raise ValueError(f"encoder.split must be none with kind {self.kind}, got {self.split}: take kind resnet")
        if self.patch and self.kind != "resnet":
            raise ValueError(f"encoder.patch must be 0 with kind {self.kind}, got {self.patch}: take kind resnet")
        if self.patch and self.split != "none":
            raise ValueError(f"encoder.patch must be 0 with encoder.split {self.split}, got {self.patch}")


@dataclass(frozen=True)
class TextBackboneConfig:
    """The network to train on texts."""

    text: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    """Shape of the Transformer, and its noise in training."""
    precision: Precision | Literal["auto"] = "auto"
    """Precision the network computes in; weights and losses stay float32. auto: bfloat16 where it is fast."""

    def __post_init__(self) -> None:
        check_ranges(self, "encoder")


@dataclass(frozen=True)
class OptimizerConfig:
    """How the weights are updated. Biases and norms are exempt from weight decay and from LARS's scaling."""

    name: Literal["sgd", "lars", "adamw"] = "sgd"
    """sgd: SGD with momentum. lars: sgd with layer-wise scaled steps, for large batches. adamw."""
    lr: Annotated[float, positive] = 0.03
    """Learning rate after the warm-up and before the scaling."""
    lr_scaling: LearningRateScaling = "linear"
    """linear: times batch_size / 256. sqrt: times the square root of batch_size. none."""
    momentum: Annotated[float, within("[0, 1)")] = 0.9
    """Momentum of sgd and lars; first beta of adamw."""
    weight_decay: Annotated[float, at_least(0)] = 5e-4
    """Weight decay."""
    warmup_epochs: Annotated[float, at_least(0)] = 0.0
    """Epochs over which the learning rate rises from 0, before it falls back to 0 along half a cosine."""

    def __post_init__(self) -> None:
        check_ranges(self, "optimizer")

    def warmup_steps(self, steps_per_epoch: int) -> int:
        """Optimizer steps of the warm-up."""
        return round(self.warmup_epochs * steps_per_epoch)


@dataclass(frozen=True)
class CheckpointConfig:
    """When a run is saved, in addition to Ctrl-C, SIGTERM and the end of the run."""

    every: Annotated[int, at_least(1)] = 500
    """Optimizer steps between checkpoints."""
    keep: Annotated[int, at_least(1)] = 2
    """Number of newest checkpoints to keep."""

    def __post_init__(self) -> None:
        check_ranges(self, "checkpoint")


@dataclass(frozen=True)
class LogConfig:
    """What a run logs while it trains."""

    every: Annotated[int, at_least(1)] = 50
    """Optimizer steps between rows of metrics."""
    images_every: Annotated[int, zero_or_more("none")] = 2000
    """Optimizer steps between pictures of view pairs; 0, none."""
    projector: Annotated[int, zero_or_more("none")] = 1000
    """Test images whose features TensorBoard's projector shows at the end; 0, none."""
    trackers: tuple[Tracker, ...] = ()
    """Experiment trackers that get the metrics as well: [wandb] for Weights & Biases, [trackio] for trackio, which
    keeps them on this machine. [default: none]"""

    def __post_init__(self) -> None:
        check_ranges(self, "log")


class Settings(Protocol):
    """The settings of any pretraining run, as the trainer reads them from a command's configuration."""

    @property
    def method(self) -> str:
        """Name of the self-supervised method in the registry."""

    @property
    def preset(self) -> str:
        """Preset that the settings started from, for provenance."""

    @property
    def epochs(self) -> int:
        """Number of passes over the samples."""

    @property
    def batch_size(self) -> int:
        """Samples per batch, over all processes."""

    @property
    def seed(self) -> int:
        """Seed of all random numbers."""

    @property
    def encoders(self) -> Mapping[Modality, BackboneConfig | TextBackboneConfig]:
        """Network of each kind of input that the data may have."""

    @property
    def objectives(self) -> registry.ObjectiveConfigs:
        """Settings of each method."""

    @property
    def optimizer(self) -> OptimizerConfig:
        """Optimizer."""

    @property
    def checkpoint(self) -> CheckpointConfig:
        """Checkpoints."""

    @property
    def log(self) -> LogConfig:
        """Logging."""

    @property
    def directory(self) -> Path:
        """The run directory."""


def fit_warmup(fitting: Fitting) -> Layer:
    """Shortens a preset's warm-up that is as long as the whole run to its share of the preset's epochs."""
    epochs, usual = (layer["epochs"] for layer in (fitting.merged, fitting.base))
    warmup = fitting.base[WARMUP]
    if fitting.is_chosen(WARMUP) or not isinstance(epochs, int) or not 0 < epochs <= warmup < usual:
        return {}
    share = warmup * epochs / usual
    if is_first():
        say(f"{WARMUP} is {share:g} with epochs {epochs}: the preset's share, {warmup:g} of {usual}")
    return {WARMUP: share}
