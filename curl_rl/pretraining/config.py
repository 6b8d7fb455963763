"""Settings that every pretraining shares: its network, its optimizer, its rhythm of saving and logging."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from curl_rl.encoders import EncoderConfig, Precision
from curl_rl.encoders.resnet import ResNetConfig
from curl_rl.objectives import registry
from curl_rl.optim.schedules import LearningRateScaling


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


@dataclass(frozen=True)
class OptimizerConfig:
    """How the weights are stepped. Biases and norms go without weight decay, and without LARS's scaling."""

    name: Literal["sgd", "lars", "adamw"] = "sgd"
    """sgd: with momentum. lars: sgd whose step is scaled layer by layer, for large batches. adamw."""
    lr: float = 0.03
    """Learning rate after the warm-up and before the scaling."""
    lr_scaling: LearningRateScaling = "linear"
    """linear: times batch_size / 256. sqrt: times the root of batch_size. none."""
    momentum: float = 0.9
    """Momentum of sgd and lars; first beta of adamw."""
    weight_decay: float = 5e-4
    """Weight decay."""
    warmup_epochs: float = 0.0
    """Epochs in which the learning rate rises from 0; half a cosine down to 0 follows."""

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise ValueError(f"optimizer.lr must be positive, got {self.lr}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"optimizer.momentum must lie in [0, 1), got {self.momentum}")
        if not self.weight_decay >= 0:
            raise ValueError(f"optimizer.weight_decay must be 0 or more, got {self.weight_decay}")
        if not self.warmup_epochs >= 0:
            raise ValueError(f"optimizer.warmup_epochs must be 0 or more, got {self.warmup_epochs}")


@dataclass(frozen=True)
class CheckpointConfig:
    """When a run is saved; besides, it is saved on Ctrl-C, on SIGTERM and at its end."""

    every: int = 500
    """Steps of the optimizer from one checkpoint to the next."""
    keep: int = 2
    """Newest checkpoints kept."""

    def __post_init__(self) -> None:
        for name in ("every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"checkpoint.{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class LogConfig:
    """What is written while a run goes on."""

    every: int = 50
    """Steps of the optimizer from one row of metrics to the next."""
    images_every: int = 2000
    """Steps from one picture of view pairs to the next; 0, none."""
    projector: int = 1000
    """Images of the test set whose features TensorBoard's projector shows at the end; 0, none."""

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"log.every must be at least 1, got {self.every}")
        for name in ("images_every", "projector"):
            if getattr(self, name) < 0:
                raise ValueError(f"log.{name} must be 0 (none) or more, got {getattr(self, name)}")


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
