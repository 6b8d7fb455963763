"""Images with captions as a source of pretraining data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from curl_rl.augment import center_crop
from curl_rl.objectives import DataSpec, Modality, Need, ViewSpec
from curl_rl.text.data.pairs import PairSet
from curl_rl.text.tokenizer import Tokenizer
from curl_rl.vision.data.image_sets import ImageBatch
from curl_rl.vision.source import offered_by
from curl_rl.vision.views import AugmentConfig, make_views


class PairBatch(NamedTuple):
    """Some images, each with captions; a :class:`~curl_rl.pretraining.sources.Batch`."""

    images: Tensor
    """``(B, 3, S, S)`` uint8."""
    tokens: tuple[Tensor, ...]
    """``(B, L)`` int64, the captions of each text view."""
    labels: Tensor | None
    """``(B,)`` int64; None if the images have no classes."""
    indices: Tensor
    """``(B,)`` int64."""
    contents: Tensor
    """``(B, 1 + T)`` int64: a number for the image, and one for each of T captions."""
    actions: None = None
    """Pairs have no actions."""


class PairSource:
    """Images with captions, and the recipe for their views: a :class:`~curl_rl.pretraining.sources.Source`.

    Of an image's captions, one is drawn for each text view, anew in every epoch. Which one depends on the seed, the
    epoch and the image alone, so that it is the same with any number of processes.

    Args:
        pairs: the images and their captions.
        tokenizer: turns captions into tokens.
        length: most tokens of a caption; longer ones are cut.
        augment: the recipe for the images.
        specs: the views that the objective compares.
        provenance: facts to store with the encoders.
    """

    unit = "pair"

    def __init__(
        self,
        pairs: PairSet,
        tokenizer: Tokenizer,
        length: int,
        augment: AugmentConfig,
        specs: Sequence[ViewSpec],
        *,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        self.pairs, self.tokenizer = pairs, tokenizer
        images = pairs.images
        self.name, self.size, self.classes = images.name, images.size, images.classes
        self.identity = f"{pairs.identity} {tokenizer.sha256} {length}"
        self.provenance = {
            **(provenance or {}),
            **images.provenance,
            "captions": sum(map(len, pairs.captions)),
            "tokenizer": tokenizer.sha256,
        }
        self.shapes: Mapping[Modality, tuple[int, int, int]] = {
            "image": (images.channels, augment.size, augment.size),
            "text": (tokenizer.vocabulary, 1, length),
        }
        self.data = DataSpec(count=len(images), classes=len(images.classes) or None)
        self.has: frozenset[Need] = offered_by(images) | {"text"}
        self._augment = augment
        self._images = [spec for spec in specs if spec.modality == "image"]
        self._texts = [spec for spec in specs if spec.modality == "text"]
        self._tokens = tokenizer.encode(pairs.texts, length).to(images.device)
        self._contents = pairs.contents.to(images.device)
        # All captions in a row, and where those of each image begin.
        self._captions = torch.tensor([place for own in pairs.captions for place in own], device=images.device)
        self._counts = np.array([len(own) for own in pairs.captions])
        self._firsts = self._counts.cumsum() - self._counts

    def __len__(self) -> int:
        return len(self.pairs)

    def batches_per_epoch(self, batch_size: int) -> int:
        """See :class:`~curl_rl.pretraining.sources.Source`."""
        return self.pairs.images.batches_per_epoch(batch_size)

    def batches(
        self, batch_size: int, *, seed: int, epoch: int = 0, start_batch: int = 0, rank: int = 0, world_size: int = 1
    ) -> Iterator[PairBatch]:
        """See :class:`~curl_rl.pretraining.sources.Source`."""
        batches = self.pairs.images.batches(
            batch_size, seed=seed, epoch=epoch, start_batch=start_batch, rank=rank, world_size=world_size
        )
        chosen = [self._drawn(seed, epoch, number) for number, _ in enumerate(self._texts)]
        return (self._pairs(batch, chosen) for batch in batches)

    def everything(self, batch_size: int, *, rank: int = 0, world_size: int = 1) -> Iterator[PairBatch]:
        """See :class:`~curl_rl.pretraining.sources.Source`; with the first caption of each image."""
        batches = self.pairs.images.batches(
            batch_size, shuffle=False, drop_last=False, rank=rank, world_size=world_size
        )
        firsts = torch.from_numpy(self._firsts).to(self._captions.device)
        return (self._pairs(batch, [self._captions[firsts]] * len(self._texts)) for batch in batches)

    def views(self, batch: PairBatch, generator: torch.Generator) -> dict[ViewSpec, Tensor]:
        """See :class:`~curl_rl.pretraining.sources.Source`."""
        views = make_views(batch.images, self._augment, generator, self._images)
        return {**views, **dict(zip(self._texts, batch.tokens, strict=True))}

    def center(self, batch: PairBatch) -> Tensor:
        """See :class:`~curl_rl.pretraining.sources.Source`."""
        return center_crop(batch.images, self._augment.size)

    def _drawn(self, seed: int, epoch: int, view: int) -> Tensor:
        """``(N,)``: the caption of each image in an epoch, as a position among all texts."""
        share = np.random.default_rng([seed, epoch, 1 + view]).random(len(self))
        places = self._firsts + (share * self._counts).astype(np.int64)
        return self._captions[torch.from_numpy(places).to(self._captions.device)]

    def _pairs(self, batch: ImageBatch, chosen: list[Tensor]) -> PairBatch:
        texts = [drawn[batch.indices] for drawn in chosen]
        contents = torch.stack([self._contents[batch.indices], *texts], 1)
        return PairBatch(batch.images, tuple(self._tokens[own] for own in texts), batch.labels, batch.indices, contents)
