"""Untrained encoders of images and of texts with a common space, and the files that a run of CLIP keeps of them."""

from __future__ import annotations

from pathlib import Path

import torch

from curl_rl.artifacts.encoder_file import ENCODER, TEXT_ENCODER, save_encoder
from curl_rl.artifacts.head_file import HEAD, TEXT_HEAD, save_head
from curl_rl.encoders import EncoderConfig, FeatureSpec, PixelEncoder, TextEncoder, TextEncoderConfig
from curl_rl.objectives import CLIP, CLIPConfig
from curl_rl.text import SentenceEncoder, Tokenizer
from curl_rl.text.pair_encoder import PairEncoder, load_pair_encoder

IMAGE_SIZE, SIDE, LENGTH, DIM = 12, 10, 9, 5
"""Sides of an image and of what the encoder sees of it, tokens of a text, and size of the common space."""
WORDS = ["a red circle", "a blue square above a green cross", "there is a yellow triangle"]


def small_sentences(seed: int = 0) -> SentenceEncoder:
    """An untrained encoder of texts with its tokenizer."""
    tokenizer = Tokenizer.train(WORDS * 9, 280)
    torch.manual_seed(seed)
    config = TextEncoderConfig(8, 1, 2, pool="end", causal=True, dropout=0.1)
    encoder = TextEncoder((tokenizer.vocabulary, 1, LENGTH), config)
    return SentenceEncoder(encoder, tokenizer, {"method": "simcse", "tokenizer": tokenizer.sha256}, freeze=True)


def save_sentences(sentences: SentenceEncoder, directory: Path, name: str = ENCODER) -> None:
    """The files that a run keeps of them."""
    save_encoder(sentences.encoder, directory, rendered_size=LENGTH, provenance=sentences.provenance, name=name)
    sentences.tokenizer.save(directory)


def save_pairs(directory: Path, seed: int = 0) -> PairEncoder:
    """Writes the files of both encoders, their heads and the tokenizer into a directory; returns what they hold."""
    texts = small_sentences(seed)
    torch.manual_seed(seed + 1)
    images = PixelEncoder((3, SIDE, SIDE), EncoderConfig(4, (2, 1), 6))
    clip = CLIP(images.feature_spec, FeatureSpec(8, (8, 1, LENGTH)), CLIPConfig(dim=DIM))
    save_encoder(images, directory, rendered_size=IMAGE_SIZE, provenance={"method": "clip", "data": "shapes"})
    save_sentences(texts, directory, TEXT_ENCODER)
    save_head(clip.image_head, directory, HEAD)
    save_head(clip.text_head, directory, TEXT_HEAD)
    return load_pair_encoder(directory)


def noise(batch: int, side: int = IMAGE_SIZE) -> torch.Tensor:
    """``(B, 3, S, S)`` uint8."""
    return torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
