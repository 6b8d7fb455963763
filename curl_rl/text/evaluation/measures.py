"""Everything that is measured on a data set, for trained encoders and for the baselines beside them.

A column of the table is an encoder or a baseline, a row a measure; what a column cannot do is left out of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from curl_rl.augment import center_crop
from curl_rl.encoders import TextEncoder
from curl_rl.runs.errors import UserError
from curl_rl.text.data.pairs import PairSet
from curl_rl.text.data.tables import SCORED, ScoredPair, read_lines, read_scored
from curl_rl.text.evaluation.agreement import spearman
from curl_rl.text.evaluation.retrieval import (
    Gallery,
    chance_both_ways,
    gallery_of,
    neighbors_captions,
    recall_both_ways,
)
from curl_rl.text.evaluation.words import TfIdf
from curl_rl.text.evaluation.zero_shot import PROMPTS, class_embeddings, zero_shot_accuracy
from curl_rl.text.pair_encoder import PairEncoder
from curl_rl.text.tokenizer import SPECIAL, Tokenizer

Scores = dict[str, float]
"""Measures by name."""
Embed = Callable[[Sequence[str]], Tensor]

_SENTENCES = "sentences.txt"
_BATCH = 256
GALLERIES = {"names": True, "captions": False}
"""Retrieval among the first captions alone, which name the images, and among all."""


def judged_pairs(folder: Path) -> dict[str, list[ScoredPair]]:
    """The tables of judged pairs in a folder, ``scored*.tsv``, by their names without suffix.

    Raises:
        UserError: one cannot be read, or all its scores are the same, which is no order to agree with.
    """
    first = Path(SCORED).stem
    found = {path.stem: (path, read_scored(path)) for path in sorted(folder.glob(f"{first}*.tsv"))}
    for path, pairs in found.values():
        if len({pair.score for pair in pairs}) < 2:
            raise UserError(
                f"{path} must have pairs with different scores, got {pairs[0].score:g} alone: add pairs, or remove it"
            )
    return {name: pairs for name, (_, pairs) in found.items()}


def agreement(judged: dict[str, list[ScoredPair]], embed: Embed) -> Scores:
    """Spearman's ρ of the cosines with people's judgments, by table."""
    found: Scores = {}
    for name, pairs in judged.items():
        texts = list(dict.fromkeys(text for pair in pairs for text in (pair.first, pair.second)))
        vectors = dict(zip(texts, F.normalize(embed(texts).float(), dim=1), strict=True))
        cosines = torch.stack([vectors[pair.first] @ vectors[pair.second] for pair in pairs])
        found |= _with_people(name, cosines, pairs)
    return found


def agreement_of_words(judged: dict[str, list[ScoredPair]], folder: Path) -> Scores:
    """The same for TF-IDF, which counts words over the judged texts and the folder's sentences, if it has any."""
    sentences = folder / _SENTENCES
    found: Scores = {}
    for name, pairs in judged.items():
        texts = dict.fromkeys(text for pair in pairs for text in (pair.first, pair.second))
        collection = [*texts, *(read_lines(sentences) if sentences.is_file() else [])]
        similarity = TfIdf(collection).pair_similarity([pair.first for pair in pairs], [pair.second for pair in pairs])
        found |= _with_people(name, similarity, pairs)
    return found


def mean_of_tokens(network: TextEncoder, tokenizer: Tokenizer) -> Embed:
    """Texts as the mean of their tokens' embeddings, which is what the encoder starts from: no order, no context."""

    @torch.no_grad()
    def embed(texts: Sequence[str]) -> Tensor:
        tokens = tokenizer.encode(texts, network.length).to(network.tokens.weight.device)
        # Without the start and the end, which every text has.
        present = tokens >= SPECIAL
        return (network.tokens(tokens) * present.unsqueeze(2)).sum(1) / present.sum(1, keepdim=True).clamp_min(1)

    return embed


class PairMeasures:
    """Retrieval and zero-shot classification on images with captions.

    Args:
        pairs: the set.
        device: where the encoders are.
    """

    def __init__(self, pairs: PairSet, device: torch.device) -> None:
        self.pairs, self._device = pairs, device
        self._galleries = {name: gallery_of(pairs, names_only=only) for name, only in GALLERIES.items()}
        batches = pairs.images.batches(_BATCH, shuffle=False, drop_last=False)
        read = list(batches)
        self._pixels = torch.cat([batch.images.cpu() for batch in read])
        if len(self._pixels) != len(pairs):
            raise UserError(f"{pairs.images.name} has images that cannot be read: remove them")
        self._labels = None if pairs.images.labels is None else pairs.images.labels.cpu()

    def encoder(self, encoder: PairEncoder, prompts: Sequence[str] = PROMPTS) -> Scores:
        """The measures of a trained or untrained encoder."""
        images = torch.cat([encoder.embed_images(part.to(self._device)).cpu() for part in self._pixels.split(_BATCH)])
        found: Scores = {}
        for name, gallery in self._galleries.items():
            similarity = images[gallery.images] @ encoder.embed_texts(gallery.texts).cpu().T
            found |= _named(name, recall_both_ways(similarity, gallery.relevant))
        if self._labels is not None and len(self.pairs.images.classes) > 1:
            classes = class_embeddings(self.pairs.images.classes, encoder.embed_texts, prompts).cpu()
            found["zero_shot_accuracy"] = zero_shot_accuracy(images, self._labels, classes)
        return found

    def neighbors(self, known: PairMeasures) -> Scores:
        """The measures of the captions of images with similar pixels, of a set whose captions are known."""
        side = min(self.pairs.images.size, known.pairs.images.size)
        own, others = (center_crop(one._pixels, side).flatten(1) for one in (self, known))
        found: Scores = {}
        for name, gallery in self._galleries.items():
            words = TfIdf([*known.pairs.texts, *gallery.texts])
            similarity = words.similarity(known.pairs.texts, gallery.texts)
            captions = torch.stack([similarity[list(places)].amax(0) for places in known.pairs.captions])
            scores = neighbors_captions(own[gallery.images], others, captions)
            found |= _named(name, recall_both_ways(scores, gallery.relevant))
        return found

    def chance(self) -> Scores:
        """The expected measures of a random order, and the share of the largest class."""
        found: Scores = {}
        for name, gallery in self._galleries.items():
            found |= _named(name, chance_both_ways(gallery.relevant))
        if self._labels is not None and len(self.pairs.images.classes) > 1:
            found["zero_shot_accuracy"] = float(self._labels.bincount().max() / len(self._labels))
        return found

    @property
    def galleries(self) -> dict[str, Gallery]:
        """What is searched, by name."""
        return self._galleries


def _with_people(table: str, similarity: Tensor, pairs: list[ScoredPair]) -> Scores:
    """ρ by the name of the table; nothing where all pairs are equally similar, which is no order."""
    scores = torch.tensor([pair.score for pair in pairs], dtype=torch.float64)
    found = spearman(similarity.double().cpu(), scores)
    return {} if found.isnan() else {f"spearman/{table}": float(found)}


def _named(gallery: str, scores: Scores) -> Scores:
    return {f"{gallery}/{name}": value for name, value in scores.items()}


def table(columns: dict[str, Scores]) -> str:
    """The measures as a table for people: shares in percent, ρ times 100, ranks as they are."""
    names = list(dict.fromkeys(name for scores in columns.values() for name in scores))
    rows = [["", *columns]]
    for name in names:
        rows.append([name, *(_cell(name, scores.get(name)) for scores in columns.values())])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return "\n".join(lines)


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.0f}" if name.endswith("median_rank") else f"{100 * value:.1f}"
