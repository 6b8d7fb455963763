"""Settings that every pretraining shares: its network, its optimizer, its rhythm of saving and logging."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, Protocol

from curl_rl.encoders import EncoderConfig, Precision
from curl_rl.encoders.resnet import ResNetConfig
from curl_rl.objectives import registry
from curl_rl.optim.schedules import LearningRateScaling
from curl_rl.ranges import at_least, check_ranges, positive, within, zero_or_more


@dataclass(frozen=True)
class BackboneConfig:
    """The network that is trained."""

    kind: Literal["resnet", "pixel"] = "resnet"
    """resnet: a ResNet. pixel: the agent's encoder, small and fast."""
    resnet: ResNetConfig = field(default_factory=lambda: ResNetConfig(stem="small"))
    """Shape of a ResNet. Its batch_norm_splits count parts of the whole batch: with W processes each has its W-th share
    of them; 1 is synchronised batch norm there."""
    pixel: EncoderConfig = field(default_factory=EncoderConfig)
    """Shape of a pixel encoder."""
    precision: Precision | Literal["auto"] = "auto"
    """What the network computes in; weights and losses stay float32. auto: bfloat16 where that is fast."""

    def __post_init__(self) -> None:
        check_ranges(self, "encoder")


@dataclass(frozen=True)
class OptimizerConfig:
    """How the weights are stepped. Biases and norms go without weight decay, and without LARS's scaling."""

    name: Literal["sgd", "lars", "adamw"] = "sgd"
    """sgd: with momentum. lars: sgd whose step is scaled layer by layer, for large batches. adamw."""
    lr: Annotated[float, positive] = 0.03
    """Learning rate after the warm-up and before the scaling."""
    lr_scaling: LearningRateScaling = "linear"
    """linear: times batch_size / 256. sqrt: times the root of batch_size. none."""
    momentum: Annotated[float, within("[0, 1)")] = 0.9
    """Momentum of sgd and lars; first beta of adamw."""
    weight_decay: Annotated[float, at_least(0)] = 5e-4
    """Weight decay."""
    warmup_epochs: Annotated[float, at_least(0)] = 0.0
    """Epochs in which the learning rate rises from 0; half a cosine down to 0 follows."""

    def __post_init__(self) -> None:
        check_ranges(self, "optimizer")


@dataclass(frozen=True)
class CheckpointConfig:
    """When a run is saved; besides, it is saved on Ctrl-C, on SIGTERM and at its end."""

    every: Annotated[int, at_least(1)] = 500
    """Steps of the optimizer from one checkpoint to the next."""
    keep: Annotated[int, at_least(1)] = 2
    """Newest checkpoints kept."""

    def __post_init__(self) -> None:
        check_ranges(self, "checkpoint")


@dataclass(frozen=True)
class LogConfig:
    """What is written while a run goes on."""

    every: Annotated[int, at_least(1)] = 50
    """Steps of the optimizer from one row of metrics to the next."""
    images_every: Annotated[int, zero_or_more("none")] = 2000
    """Steps from one picture of view pairs to the next; 0, none."""
    projector: Annotated[int, zero_or_more("none")] = 1000
    """Images of the test set whose features TensorBoard's projector shows at the end; 0, none."""

    def __post_init__(self) -> None:
        check_ranges(self, "log")


class Settings(Protocol):
    """The settings of a pretraining run of any kind: what the trainer asks of a command's configuration."""

    @property
    def method(self) -> str:
        """Self-supervised method, by its name in the registry."""

    @property
    def preset(self) -> str:
        """What the settings started from, for provenance."""

    @property
    def epochs(self) -> int:
        """Times that every sample is seen."""

    @property
    def batch_size(self) -> int:
        """Samples in a batch, of all processes together."""

    @property
    def seed(self) -> int:
        """Seed of everything random."""

    @property
    def encoder(self) -> BackboneConfig:
        """Network."""

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
        """Where the run lives."""
