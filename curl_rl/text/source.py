"""A file of sentences as a source of pretraining data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from curl_rl.encoders.text import PADDING
from curl_rl.objectives import DataSpec, Modality, Need, ViewSpec
from curl_rl.runs.errors import UserError
from curl_rl.runs.seeds import derived_seed
from curl_rl.text.masking import mask_tokens
from curl_rl.text.sentences import Sentences
from curl_rl.text.tokenizer import Tokenizer, without_padding
from curl_rl.vision.data.image_sets import epoch_order


class SentenceBatch(NamedTuple):
    """Some sentences; a :class:`~curl_rl.pretraining.sources.Batch`."""

    indices: Tensor
    """``(B,)`` int64."""
    whole: Tensor
    """``(W,)`` int64, on the CPU: the indices of the whole batch, of which this is a process's share."""
    labels: Tensor | None = None
    """Sentences have no classes."""
    actions: Tensor | None = None
    """Nor actions."""
    contents: None = None
    """A sentence has one part."""
    hidden: Tensor | None = None
    """As in :class:`~curl_rl.objectives.BatchInfo`."""
    masked: Tensor | None = None
    """``(B, l)`` int64: the sentences without these tokens."""


class _Texts(NamedTuple):
    """The text of each of N sentences that a view shows."""

    tokens: Tensor
    """``(N, L)`` int64: texts."""
    places: Tensor
    """``(N,)``: each sentence's among them."""
    lengths: Tensor
    """``(N,)``, on the CPU: each sentence's, in tokens."""

    def of(self, batch: SentenceBatch) -> Tensor:
        """``(B, l)``: those of a batch, without the columns that are padding in the whole batch."""
        # The whole batch's, since processes exchange maps of one shape; on the CPU, since reading it must not wait.
        longest = int(self.lengths[batch.whole].max())
        return self.tokens[self.places[batch.indices], :longest]


class SentenceSource:
    """Sentences as rows of tokens: a :class:`~curl_rl.pretraining.sources.Source`.

    View 0 is the sentence, view 1 its positive if the data have positives, else the sentence again, and view 2 its hard
    negative. A view of the future is a later sentence of the document, the last one past its end. A batch has as many
    columns as its longest text has tokens. A masked view hides tokens of the sentence; which ones depends on the seed
    and the step alone, so that they are the same with any number of processes.

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
    has: frozenset[Need] = frozenset({"indices", "epochs", "text", "hidden"})

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
        self.data = DataSpec(count=len(self), vocabulary=tokenizer.vocabulary)
        self._device = device
        encoded = [tokenizer.encode(column, length) for column in sentences.columns]
        self._sentences, self._tokens = encoded[0], [tokens.to(device) for tokens in encoded]
        self._following = torch.tensor(sentences.following)
        self._own = self._texts(ViewSpec(0, modality="text"))
        self._shown: dict[ViewSpec, _Texts] = {}
        self._masked: ViewSpec | None = None

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
        self._shown = {spec: self._texts(spec) for spec in specs if not spec.masked}
        self._masked = next((spec for spec in specs if spec.masked), None)
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
        first = epoch * self.batches_per_epoch(batch_size) + start_batch
        return (
            self._batch(places, rank, world_size, derived_seed(seed, "hidden tokens", step))
            for step, places in enumerate(chosen, first)
        )

    def everything(self, batch_size: int, *, rank: int = 0, world_size: int = 1) -> Iterator[SentenceBatch]:
        """See :class:`~curl_rl.pretraining.sources.Source`."""
        parts = torch.arange(len(self)).split(batch_size)
        return (self._batch(places, rank, world_size, step) for step, places in enumerate(parts))

    def views(self, batch: SentenceBatch, generator: torch.Generator) -> dict[ViewSpec, Tensor]:
        """See :class:`~curl_rl.pretraining.sources.Source`; draws nothing: the noise is the encoder's."""
        views = {spec: texts.of(batch) for spec, texts in self._shown.items()}
        if self._masked is not None and batch.masked is not None:
            views[self._masked] = batch.masked
        return views

    def center(self, batch: SentenceBatch) -> Tensor:
        """See :class:`~curl_rl.pretraining.sources.Source`."""
        return self._own.of(batch)

    def _texts(self, spec: ViewSpec) -> _Texts:
        places = torch.arange(len(self))
        for _ in range(spec.future):
            places = self._following[places]
        tokens = self._tokens[spec.index if spec.index < len(self._tokens) and not spec.future else 0]
        lengths = (tokens != PADDING).sum(1).cpu()
        return _Texts(tokens, places.to(self._device), lengths[places])

    def _batch(self, whole: Tensor, rank: int, world_size: int, seed: int) -> SentenceBatch:
        def share(rows: Tensor) -> Tensor:
            return rows.tensor_split(world_size)[rank].to(self._device)

        if self._masked is None:
            return SentenceBatch(share(whole), whole)
        texts = without_padding(self._sentences[whole])
        masked, hidden = mask_tokens(texts, self.tokenizer.vocabulary, torch.Generator().manual_seed(seed))
        return SentenceBatch(share(whole), whole, hidden=share(hidden), masked=share(masked))
