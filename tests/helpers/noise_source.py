"""A source of noise pictures without a folder, and the settings of a run that learns from it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from curl_rl.encoders import EncoderConfig
from curl_rl.encoders.resnet import ResNetConfig
from curl_rl.objectives import BatchInfo, DataSpec, Modality, Need, ViewSpec, registry
from curl_rl.pretraining.config import BackboneConfig, CheckpointConfig, LogConfig, OptimizerConfig, TextBackboneConfig
from curl_rl.runs.session import Remedies

SIDE, COUNT = 8, 11
REMEDIES = Remedies(memory="lower it", numbers="slow down")
PIXEL = BackboneConfig("pixel", pixel=EncoderConfig(2, (2,), 4), precision="float32")
RESNET = BackboneConfig("resnet", resnet=ResNetConfig(width=1 / 16, stem="small"), precision="float32")
PLAIN_SGD = OptimizerConfig("sgd", lr=0.01, lr_scaling="none", weight_decay=0.0)
EVERY_THIRD = CheckpointConfig(every=3, keep=9)
EVERY_STEP = LogConfig(every=1)


@dataclass(frozen=True)
class Plan:
    """The settings of a run: 2 steps of 5 pictures per epoch, with one picture left over."""

    directory: Path
    method: str = "clustered"
    preset: str = "none"
    epochs: int = 3
    batch_size: int = 5
    seed: int = 3
    encoder: BackboneConfig = PIXEL
    objectives: Any = field(default_factory=registry.objective_configs)
    optimizer: OptimizerConfig = PLAIN_SGD
    checkpoint: CheckpointConfig = EVERY_THIRD
    log: LogConfig = EVERY_STEP

    @property
    def encoders(self) -> dict[Modality, BackboneConfig | TextBackboneConfig]:
        return {"image": self.encoder}


class NoiseSource:
    """See :class:`curl_rl.pretraining.sources.Source`. Its views are deterministic, so that all processes see the same.

    ``slow``: seconds per batch, for tests that kill a run from outside.
    """

    unit = "picture"
    name, identity = "noise", "of seed 0"
    size = SIDE
    shapes: Mapping[Modality, tuple[int, int, int]] = MappingProxyType({"image": (3, SIDE, SIDE)})
    has: frozenset[Need] = frozenset({"indices", "epochs"})

    def __init__(self, *, slow: float = 0.0, classes: tuple[str, ...] = ()) -> None:
        generator = torch.Generator().manual_seed(0)
        # Each picture has its own brightness, so that the statistics of the shards differ.
        brightness = torch.linspace(0.2, 1, COUNT).view(-1, 1, 1, 1)
        noise = torch.rand(COUNT, 3, SIDE, SIDE, generator=generator) * brightness
        self.pictures = (255 * noise).to(torch.uint8)
        self.classes = classes
        self.provenance: dict[str, Any] = {"noise": "white"}
        self.data = DataSpec(count=COUNT, classes=len(classes) or None)
        self.slow = slow

    def __len__(self) -> int:
        return COUNT

    def batches_per_epoch(self, batch_size: int) -> int:
        return COUNT // batch_size

    def batches(
        self, batch_size: int, *, seed: int, epoch: int = 0, start_batch: int = 0, rank: int = 0, world_size: int = 1
    ) -> Iterator[BatchInfo]:
        order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(1000 * seed + epoch))
        for places in order.split(batch_size)[start_batch : COUNT // batch_size]:
            time.sleep(self.slow)
            yield self._batch(places.tensor_split(world_size)[rank])

    def everything(self, batch_size: int, *, rank: int = 0, world_size: int = 1) -> Iterator[BatchInfo]:
        for places in torch.arange(COUNT).split(batch_size):
            yield self._batch(places.tensor_split(world_size)[rank])

    def views(self, batch: BatchInfo, generator: torch.Generator) -> dict[ViewSpec, Tensor]:
        pictures = self.center(batch).float() / 255
        return {ViewSpec(0): pictures, ViewSpec(1): pictures.flip(-1)}

    def center(self, batch: BatchInfo) -> Tensor:
        assert batch.indices is not None
        return self.pictures[batch.indices]

    def _batch(self, places: Tensor) -> BatchInfo:
        return BatchInfo(places, places % len(self.classes) if self.classes else None)
