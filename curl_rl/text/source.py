"""A file of sentences as a source of pretraining data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from curl_rl.objectives import DataSpec, Modality, Need, ViewSpec
from curl_rl.runs.errors import UserError
from curl_rl.text.sentences import Sentences
from curl_rl.text.tokenizer import Tokenizer
from curl_rl.vision.data.image_sets import epoch_order


class SentenceBatch(NamedTuple):
    """Some sentences; a :class:`~curl_rl.pretraining.sources.Batch`."""

    indices: Tensor
    """``(B,)`` int64."""
    labels: Tensor | None = None
    """Sentences have no classes."""
    actions: Tensor | None = None
    """Nor actions."""
    contents: None = None
    """A sentence has one part."""


class SentenceSource:
    """Sentences as rows of tokens: a :class:`~curl_rl.pretraining.sources.Source`.

    View 0 is the sentence, view 1 its positive if the data have positives, else the sentence again, and view 2 its hard
    negative. A view of the future is a later sentence of the document, the last one past its end.

    Args:
        sentences: the sentences.
        tokenizer: their tokenizer.
        length: most tokens of a text; longer ones are cut.
        device: where the tokens are kept.
        provenance: facts to store with the encoder.

    Raises:
        UserError: the length leaves no room for a text.
    """

    unit = "sentence"
    classes: tuple[str, ...] = ()
    has: frozenset[Need] = frozenset({"indices", "epochs", "text"})

    def __init__(
        self,
        sentences: Sentences,
        tokenizer: Tokenizer,
        length: int,
        device: torch.device,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        self.sentences, self.tokenizer, self.name, self.size = sentences, tokenizer, sentences.name, length
        self.identity = f"{sentences.identity} {tokenizer.sha256} {length}"
        self.provenance = {**(provenance or {}), "sentences": len(self), "tokenizer": tokenizer.sha256}
        self.shapes: Mapping[Modality, tuple[int, int, int]] = {"text": (tokenizer.vocabulary, 1, length)}
        self.data = DataSpec(count=len(self))
        self._device = device
        self._tokens = [tokenizer.encode(column, length).to(device) for column in sentences.columns]
        self._following = torch.tensor(sentences.following, device=device)
        self._specs: tuple[ViewSpec, ...] = ()

    def showing(self, specs: Sequence[ViewSpec]) -> SentenceSource:
        """Chooses the views that the objective compares; returns itself.

        Raises:
            UserError: the data have no texts for one of them.
        """
        missing = max(spec.index for spec in specs if not spec.future)
        if missing >= len(self._tokens) and missing > 1:
            raise UserError(
                f"data must have {missing + 1} texts in a line, separated by tabs, for a sentence, its positive and "
                f"its hard negative, got {len(self._tokens)} in {self.name}: set objectives.simcse.hard_negatives false"
            )
        self._specs = tuple(specs)
        return self

    def __len__(self) -> int:
        return len(self.sentences.following)

    def batches_per_epoch(self, batch_size: int) -> int:
        """See :class:`~curl_rl.pretraining.sources.Source`."""
        return len(self) // batch_size

    def batches(
        self, batch_size: int, *, seed: int, epoch: int = 0, start_batch: int = 0, rank: int = 0, world_size: int = 1
    ) -> Iterator[SentenceBatch]:
        """See :class:`~curl_rl.pretraining.sources.Source`."""
        chosen = epoch_order(len(self), seed, epoch).split(batch_size)[start_batch : self.batches_per_epoch(batch_size)]
        return (self._batch(places.tensor_split(world_size)[rank]) for places in chosen)

    def everything(self, batch_size: int, *, rank: int = 0, world_size: int = 1) -> Iterator[SentenceBatch]:
        """See :class:`~curl_rl.pretraining.sources.Source`."""
        parts = torch.arange(len(self)).split(batch_size)
        return (self._batch(places.tensor_split(world_size)[rank]) for places in parts)

    def views(self, batch: SentenceBatch, generator: torch.Generator) -> dict[ViewSpec, Tensor]:
        """See :class:`~curl_rl.pretraining.sources.Source`; draws nothing, for the noise is the encoder's."""
        return {spec: self._view(batch.indices, spec) for spec in self._specs}

    def center(self, batch: SentenceBatch) -> Tensor:
        """See :class:`~curl_rl.pretraining.sources.Source`."""
        return self._tokens[0][batch.indices]

    def _view(self, places: Tensor, spec: ViewSpec) -> Tensor:
        if spec.future:
            for _ in range(spec.future):
                places = self._following[places]
            return self._tokens[0][places]
        return self._tokens[spec.index if spec.index < len(self._tokens) else 0][places]

    def _batch(self, places: Tensor) -> SentenceBatch:
        return SentenceBatch(places.to(self._device))
