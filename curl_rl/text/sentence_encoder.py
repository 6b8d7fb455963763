"""A trained text encoder with its tokenizer: from sentences to vectors, and as a program."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from curl_rl.artifacts import network_file
from curl_rl.artifacts.encoder_file import ENCODER, HUB_NAME, TEXT_ENCODER
from curl_rl.artifacts.network_file import damaged, file_description, load_network, network_files
from curl_rl.artifacts.programs import OUTPUT, Program
from curl_rl.encoders import TextEncoder, TwoTowerTextEncoder, build_encoder
from curl_rl.runs.errors import UserError
from curl_rl.text.tokenizer import TOKENIZER, Tokenizer, without_padding

TOKENS = "tokens"
"""Name of the input of a text encoder's program."""
_BATCH = 256


class SentenceEncoder(nn.Module):
    """A text encoder that takes sentences: ``encoder(sentences)`` returns ``(N, dim)``.

    Args:
        encoder: the network.
        tokenizer: the tokenizer that it was trained with.
        provenance: how and on what it was trained.
        freeze: no gradients, and permanent evaluation mode.

    Raises:
        ValueError: the tokenizer has more tokens than the encoder.
    """

    def __init__(
        self,
        encoder: TextEncoder | TwoTowerTextEncoder,
        tokenizer: Tokenizer,
        provenance: dict[str, Any],
        *,
        freeze: bool = False,
    ) -> None:
        super().__init__()
        if tokenizer.vocabulary > encoder.input_shape[0]:
            raise ValueError(
                f"the tokenizer must have at most the {encoder.input_shape[0]} tokens of the encoder, got "
                f"{tokenizer.vocabulary}"
            )
        self.encoder, self.tokenizer, self.provenance, self.frozen = encoder, tokenizer, provenance, freeze
        if freeze:
            self.requires_grad_(False).eval()

    @property
    def features(self) -> int:
        """Size of a vector."""
        return self.encoder.feature_spec.dim

    def train(self, mode: bool = True) -> SentenceEncoder:
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def forward(self, sentences: Sequence[str]) -> Tensor:
        """``(N, dim)`` of N sentences, encoded in parts."""
        if isinstance(sentences, str):
            raise ValueError(f"sentences must be a list of texts, got one text: [{sentences[:20]!r}]")
        weight = next(self.encoder.parameters())
        tokens = self.tokenizer.encode(sentences, self.encoder.input_shape[2])
        parts = [without_padding(part).to(weight.device) for part in tokens.split(_BATCH) if len(part)]
        vectors: list[Tensor] = [self.encoder(part) for part in parts]
        return torch.cat(vectors) if vectors else weight.new_empty(0, self.features)


def load_sentence_encoder(path: Path | str, *, freeze: bool = True) -> SentenceEncoder:
    """Loads the text encoder of a run with its tokenizer, ``tokenizer.json`` beside it.

    Args:
        path: a run's directory, or an ``encoder.safetensors`` in one. Of a run that has trained an encoder of images as
            well, it is the ``text_encoder.safetensors``. The directory may also be one for the Hugging Face Hub.
        freeze: no gradients, and permanent evaluation mode; False to train the encoder further.

    Raises:
        UserError: a file is missing or damaged, the encoder is one of images, or the tokenizer is not the one that it
            was trained with.
    """
    names = (TEXT_ENCODER,) if _has(path, TEXT_ENCODER) else (ENCODER, HUB_NAME)
    files = network_files(path, *names)

    def build(description: dict[str, Any]) -> TextEncoder | TwoTowerTextEncoder:
        encoder = build_encoder(description)
        if not isinstance(encoder, (TextEncoder, TwoTowerTextEncoder)):
            raise UserError(
                f"{files[0]} is an encoder of images, not of texts: load it with curl_rl.load_encoder, or name a run "
                "of scripts/pretrain_text.py"
            )
        return encoder

    encoder, description = load_network(files, ENCODER, build)
    provenance = description.get("provenance", {})
    if not isinstance(provenance, dict):
        raise damaged(ENCODER, files[0], ValueError("provenance must be a mapping"))
    if not (files[0].parent / TOKENIZER).is_file():
        raise UserError(f"no tokenizer {files[0].parent / TOKENIZER}: copy it from the run that trained the encoder")
    tokenizer = Tokenizer.load(files[0].parent / TOKENIZER)
    if provenance.get("tokenizer", tokenizer.sha256) != tokenizer.sha256:
        raise UserError(
            f"{files[0].parent / TOKENIZER} is not the tokenizer that the encoder was trained with (SHA-256 "
            f"{str(provenance['tokenizer'])[:12]}…): copy it from the run"
        )
    return SentenceEncoder(encoder, tokenizer, provenance, freeze=freeze)


def _has(path: Path | str, name: str) -> bool:
    return (Path(path) / f"{name}.safetensors").is_file()


def describe(sentences: SentenceEncoder) -> dict[str, Any]:
    """The description that the encoder's file holds, JSON-serializable."""
    length = sentences.encoder.input_shape[2]
    own = {**sentences.encoder.describe(), "rendered_size": length, "provenance": sentences.provenance}
    return file_description(sentences.encoder, own)


def as_safetensors(sentences: SentenceEncoder) -> bytes:
    """An encoder as one self-describing file; its tokenizer is a file of its own."""
    return network_file.as_safetensors(sentences.encoder, describe(sentences))


def sentence_program(sentences: SentenceEncoder) -> Program:
    """The program of a text encoder: ``tokens`` ``(batch, length)`` int64 to ``features`` ``(batch, dim)``.

    Tokens come from the tokenizer's own file, which the library ``tokenizers`` reads in many languages: a start, the
    text's, an end, and padding.
    """
    network = copy.deepcopy(sentences.encoder).cpu().requires_grad_(False).eval()
    vocabulary, _, length = network.input_shape

    def draw(batch: int, generator: torch.Generator) -> Tensor:
        shape = (batch, length)
        tokens = torch.randint(1, vocabulary, shape, generator=generator)
        lengths = torch.randint(1, length + 1, (batch, 1), generator=generator)
        return tokens * (torch.arange(length) < lengths)

    spec = {"name": TOKENS, "shape": ["batch", length], "dtype": "int64", "range": [0, vocabulary - 1]}
    return Program("encoder", network, {TOKENS: draw}, OUTPUT, {**describe(sentences), "input": spec})
