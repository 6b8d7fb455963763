"""Trained encoders of images and of texts with a common space: what CLIP leaves behind, ready to compare."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curl_rl.artifacts.encoder_file import ENCODER, load_encoder
from curl_rl.artifacts.head_file import HEAD, TEXT_HEAD, load_head
from curl_rl.artifacts.pretrained import PretrainedEncoder
from curl_rl.augment import center_crop
from curl_rl.runs.errors import UserError
from curl_rl.text.sentence_encoder import SentenceEncoder, load_sentence_encoder

_BATCH = 256


class PairEncoder(nn.Module):
    """Images and texts as vectors of length 1 in a common space, compared by their products.

    Args:
        images: the encoder of images.
        texts: the encoder of texts, with its tokenizer.
        image_head: maps the images' vectors into the common space.
        text_head: maps the texts' vectors there.
    """

    def __init__(
        self, images: PretrainedEncoder, texts: SentenceEncoder, image_head: nn.Sequential, text_head: nn.Sequential
    ) -> None:
        super().__init__()
        self.images, self.texts, self.image_head, self.text_head = images, texts, image_head, text_head
        self.requires_grad_(False).eval()

    @property
    def image_size(self) -> int:
        """Side of the images that it was trained on, in pixels."""
        return self.images.rendered_size

    @torch.no_grad()
    def embed_images(self, images: Tensor) -> Tensor:
        """``(N, D)`` of N images ``(N, 3, S, S)``, uint8: of their center crops, as large as the training views."""
        side = self.images.observation_shape[-1]
        parts = [self.image_head(self.images(center_crop(part, side))) for part in images.split(_BATCH)]
        return F.normalize(torch.cat(parts).float(), dim=1)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """``(N, D)`` of N texts."""
        return F.normalize(self.text_head(self.texts(texts)).float(), dim=1)

    def untrained(self, seed: int) -> PairEncoder:
        """The same networks with new random weights."""
        new = copy.deepcopy(self)
        new.images.encoder, new.texts.encoder = self.images.encoder.fresh(seed), self.texts.encoder.fresh(seed)
        generator = torch.Generator().manual_seed(seed)
        for head in (new.image_head, new.text_head):
            for weight in head.parameters():
                weight.copy_(torch.randn(weight.shape, generator=generator) * weight.shape[-1] ** -0.5)
        return new.requires_grad_(False).eval()


def load_pair_encoder(run: Path | str, device: torch.device | str = "cpu") -> PairEncoder:
    """Loads the two encoders of a run with their heads and the tokenizer.

    Args:
        run: the run's directory.
        device: where to load them.

    Raises:
        UserError: the directory is no run on images with captions, or a file is missing or damaged.
    """
    run = Path(run)
    if not run.is_dir():
        raise UserError(f"{run} is not a run directory: name one of scripts/pretrain_text.py --method clip")
    if not (run / f"{TEXT_HEAD}.safetensors").is_file():
        raise UserError(
            f"{run} has no encoders of images and of texts with a common space: name a run of scripts/pretrain_text.py "
            "--method clip, which trains them"
        )
    images = load_encoder(run / f"{ENCODER}.safetensors", freeze=True)
    encoder = PairEncoder(images, load_sentence_encoder(run), load_head(run, HEAD), load_head(run, TEXT_HEAD))
    return encoder.to(device)
