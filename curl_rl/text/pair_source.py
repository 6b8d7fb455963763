"""Images with captions as a source of pretraining data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from curl_rl.objectives import Modality, Need, ViewSpec
from curl_rl.text.data.pairs import PairSet
from curl_rl.text.tokenizer import Tokenizer, without_padding
from curl_rl.vision.data.image_sets import ImageBatch
from curl_rl.vision.source import ImageSource
from curl_rl.vision.views import AugmentConfig


class PairBatch(NamedTuple):
    """Some images, each with a caption; a :class:`~curl_rl.pretraining.sources.Batch`."""

    images: ImageBatch
    tokens: tuple[Tensor, ...]
    """``(B, L)`` int64: a caption of each image, for each text view."""
    contents: Tensor
    """``(B, 1 + T)`` int64: a number for the image, and one for each of T captions."""

    @property
    def indices(self) -> Tensor:
        """``(B,)`` int64."""
        return self.images.indices

    @property
    def labels(self) -> Tensor | None:
        """``(B,)`` int64; None if the images have no classes."""
        return self.images.labels

    @property
    def actions(self) -> None:
        """Images with captions have no actions."""
        return None

    @property
    def hidden(self) -> None:
        """Their captions are never masked."""
        return None


class PairSource:
    """Images with captions, and the recipe for their views: a :class:`~curl_rl.pretraining.sources.Source`.

    Of an image's captions, one is drawn for each text view, anew in every epoch. Which one depends on the seed, the
    epoch and the image alone, so that it is the same with any number of processes.

    Args:
        pairs: the images and their captions.
        tokenizer: turns captions into tokens.
        length: most tokens of a caption; longer ones are cut.
        augment: the recipe for the images.
        provenance: facts to store with the encoders.
    """

    unit = "pair"

    def __init__(
        self,
        pairs: PairSet,
        tokenizer: Tokenizer,
        length: int,
        augment: AugmentConfig,
        *,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        self._pairs, self._augment = pairs, augment
        self._images = ImageSource(pairs.images, augment, ())
        self._texts: list[ViewSpec] = []
        self.name, self.size, self.classes = self._images.name, self._images.size, self._images.classes
        self.identity = f"{pairs.identity} {tokenizer.sha256} {length}"
        self.provenance = {
            **(provenance or {}),
            **self._images.provenance,
            "captions": sum(map(len, pairs.captions)),
            "tokenizer": tokenizer.sha256,
        }
        self.shapes: Mapping[Modality, tuple[int, int, int]] = {
            **self._images.shapes,
            "text": (tokenizer.vocabulary, 1, length),
        }
        self.data = self._images.data
        self.has: frozenset[Need] = self._images.has | {"text"}
        device = pairs.images.device
        self._tokens = without_padding(tokenizer.encode(pairs.texts, length)).to(device)
        self._contents = pairs.contents.to(device)
        # All captions in a row, and where those of each image begin.
        self._captions = torch.tensor([place for own in pairs.captions for place in own], device=device)
        self._counts = np.array([len(own) for own in pairs.captions])
        self._firsts = self._counts.cumsum() - self._counts

    def showing(self, specs: Sequence[ViewSpec]) -> PairSource:
        """Chooses the views that the objective compares; returns itself."""
        images = [spec for spec in specs if spec.modality == "image"]
        self._images = ImageSource(self._pairs.images, self._augment, images)
        self._texts = [spec for spec in specs if spec.modality == "text"]
        return self

    def __len__(self) -> int:
        return len(self._images)

    def batches_per_epoch(self, batch_size: int) -> int:
        """See :class:`~curl_rl.pretraining.sources.Source`."""
        return self._images.batches_per_epoch(batch_size)

    def batches(
        self, batch_size: int, *, seed: int, epoch: int = 0, start_batch: int = 0, rank: int = 0, world_size: int = 1
    ) -> Iterator[PairBatch]:
        """See :class:`~curl_rl.pretraining.sources.Source`."""
        batches = self._images.batches(
            batch_size, seed=seed, epoch=epoch, start_batch=start_batch, rank=rank, world_size=world_size
        )
        chosen = [self._drawn(seed, epoch, view) for view in range(len(self._texts))]
        return (self._captioned(batch, chosen) for batch in batches)

    def everything(self, batch_size: int, *, rank: int = 0, world_size: int = 1) -> Iterator[PairBatch]:
        """See :class:`~curl_rl.pretraining.sources.Source`; with the first caption of each image."""
        batches = self._images.everything(batch_size, rank=rank, world_size=world_size)
        firsts = [self._at(self._firsts)] * len(self._texts)
        return (self._captioned(batch, firsts) for batch in batches)

    def views(self, batch: PairBatch, generator: torch.Generator) -> dict[ViewSpec, Tensor]:
        """See :class:`~curl_rl.pretraining.sources.Source`."""
        return {**self._images.views(batch.images, generator), **dict(zip(self._texts, batch.tokens, strict=True))}

    def center(self, batch: PairBatch) -> Tensor:
        """See :class:`~curl_rl.pretraining.sources.Source`; the images."""
        return self._images.center(batch.images)

    def _drawn(self, seed: int, epoch: int, view: int) -> Tensor:
        """``(N,)``: the caption of each image in an epoch, as a position among all texts."""
        # The order of the images is drawn from [seed, epoch].
        share = np.random.default_rng([seed, epoch, 1 + view]).random(len(self))
        return self._at(self._firsts + (share * self._counts).astype(np.int64))

    def _at(self, places: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Tensor:
        """``(N,)``: the captions at these places in the row of all."""
        return self._captions[torch.from_numpy(places).to(self._captions.device)]

    def _captioned(self, batch: ImageBatch, chosen: list[Tensor]) -> PairBatch:
        texts = [drawn[batch.indices] for drawn in chosen]
        contents = torch.stack([self._contents[batch.indices], *texts], 1)
        return PairBatch(batch, tuple(self._tokens[own] for own in texts), contents)
