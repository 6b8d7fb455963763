"""Hidden tokens for masked-language modeling (Devlin et al. 2018, arXiv 1810.04805, section 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor

from curl_rl.encoders.text import PADDING
from curl_rl.text.tokenizer import SPECIAL, START

RATE = 0.15
"""Probability that a token is hidden."""


def mask_tokens(texts: Tensor, vocabulary: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Hides random tokens of each text.

    Each token, except the special ones, is hidden with probability :data:`RATE`: 80 % of those give way to a mask, 10 %
    to a random token, and 10 % stay. The mask is the start token, which a text has nowhere else, so that any tokenizer
    has one.

    Args:
        texts: ``(B, L)`` int64, on the CPU.
        vocabulary: number of tokens, the special ones included.
        generator: on the CPU.

    Returns:
        ``(B, L)``, what the encoder sees; and ``(B, H, 2)``, the place and the number of each hidden token, filled up
        with 0.
    """
    chosen = (torch.rand(texts.shape, generator=generator) < RATE) & (texts >= SPECIAL)
    fate = torch.rand(texts.shape, generator=generator)
    others = torch.randint(SPECIAL, max(SPECIAL + 1, vocabulary), texts.shape, generator=generator)
    seen = torch.where(chosen & (fate < 0.8), START, texts)
    seen = torch.where(chosen & (fate >= 0.9), others, seen)

    most = max(1, int(chosen.sum(1).max()))
    places = chosen.int().argsort(dim=1, descending=True, stable=True)[:, :most]
    real = chosen.gather(1, places)
    numbers = texts.gather(1, places).where(real, PADDING)
    return seen, torch.stack([places.where(real, 0), numbers], 2)
