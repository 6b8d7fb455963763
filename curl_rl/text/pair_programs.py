"""Encoders of images and of texts with a common space as programs: vectors of length 1, compared by their products."""

from __future__ import annotations

import copy

import torch.nn.functional as F
from torch import Tensor, nn

from curl_rl.artifacts.encoder_file import describe
from curl_rl.artifacts.head_file import describe_layers
from curl_rl.artifacts.pretrained import PretrainedEncoder
from curl_rl.artifacts.programs import INPUT, Program, ProgramInput
from curl_rl.augment import center_crop
from curl_rl.text.pair_encoder import PairEncoder
from curl_rl.text.sentence_encoder import sentence_program

EMBEDDING = "embeddings"
"""Name of their output."""


class _ImageEmbedding(nn.Module):
    """What :meth:`PairEncoder.embed_images` does, in one piece."""

    def __init__(self, encoder: PretrainedEncoder, head: nn.Module, *, channels_last: bool) -> None:
        super().__init__()
        self.encoder, self.head, self.channels_last = encoder, head, channels_last
        self.side = encoder.observation_shape[-1]

    def forward(self, images: Tensor) -> Tensor:
        images = images.permute(0, 3, 1, 2) if self.channels_last else images
        return F.normalize(self.head(self.encoder(center_crop(images, self.side))))


class _TextEmbedding(nn.Module):
    """What :meth:`PairEncoder.embed_texts` does of tokens."""

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, tokens: Tensor) -> Tensor:
        return F.normalize(self.head(self.encoder(tokens)))


def image_program(pair: PairEncoder, taken: ProgramInput = ProgramInput()) -> Program:  # noqa: B008 (frozen)
    """The program of the images: ``observation`` ``(batch, *shape)`` to ``embeddings`` ``(batch, D)``.

    Raises:
        ValueError: the images are smaller than the crop that the encoder was trained on.
    """
    images = pair.images
    spec, least = taken.spec(images), images.observation_shape[-1]
    if (side := taken.side or images.rendered_size) < least:
        raise ValueError(f"side must be at least {least}, the size of the encoder's crop, got {side}")
    network = copy.deepcopy(images.encoder).cpu()
    encoder = PretrainedEncoder(network, images.rendered_size, images.provenance, layout="CHW", freeze=True)
    head = copy.deepcopy(pair.image_head).cpu()
    return Program(
        "encoder",
        _ImageEmbedding(encoder, head, channels_last=taken.layout == "HWC").requires_grad_(False).eval(),
        {INPUT: lambda batch, generator: taken.random(images, batch, generator)},
        EMBEDDING,
        {**describe(images), "head": describe_layers(head), "input": spec},
    )


def text_program(pair: PairEncoder) -> Program:
    """The program of the texts: ``tokens`` ``(batch, length)`` int64 to ``embeddings`` ``(batch, D)``."""
    own, head = sentence_program(pair.texts), copy.deepcopy(pair.text_head).cpu()
    module = _TextEmbedding(own.module, head).requires_grad_(False).eval()
    return Program(own.name, module, own.inputs, EMBEDDING, {**own.description, "head": describe_layers(head)})
