"""Speed of the text encoder beside PyTorch's own Transformer, and of the losses on texts and on pairs."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.timing import Row, compared, side_by_side
from curl_rl.encoders import Features, FeatureSpec, TextEncoder
from curl_rl.encoders.text import PADDING
from curl_rl.objectives import CLIP, BatchInfo, CLIPConfig, DataSpec, Objective, SimCSE, SimCSEConfig
from curl_rl.runs.compute import resolve_precision
from curl_rl.text.config import load_preset

PAIRS = 256
"""Pairs in a batch of the losses."""
DIM = 256
"""Size of their vectors."""
_SPECIAL = 3  # tokens of the vocabulary that no text is made of


class PlainTextEncoder(nn.Module):
    """The same network as a :class:`~curl_rl.encoders.TextEncoder`, of PyTorch's ``nn.TransformerEncoder``.

    PyTorch's layer also drops units between the two linear layers, which ours does not: that dropout is left out.

    Args:
        encoder: whose sizes, dropout and weights it has; its vector must be the mean of all tokens.
    """

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        c = encoder.config
        if c.pool != "mean" or c.causal or c.cutoff != "none":
            raise ValueError(f"the encoder must have pool mean, no causal mask and no cutoff, got {c}")
        self.tokens = nn.Embedding(encoder.vocabulary, c.width)
        self.positions = nn.Parameter(torch.empty(encoder.length, c.width))
        self.dropout = nn.Dropout(c.dropout)
        layer = nn.TransformerEncoderLayer(
            c.width, c.heads, 4 * c.width, c.dropout, "gelu", batch_first=True, norm_first=True
        )
        layer.dropout = nn.Identity()  # type: ignore[assignment]
        # Nested tensors are for the post-norm layer in evaluation.
        self.transformer = nn.TransformerEncoder(layer, c.layers, nn.LayerNorm(c.width), enable_nested_tensor=False)
        self.to(encoder.positions)
        self.load_state_dict({_their_name(name): value for name, value in encoder.state_dict().items()})

    def forward(self, tokens: Tensor) -> Tensor:
        """``(B, l)`` int64 to ``(B, width)``."""
        padding = tokens == PADDING
        x = self.dropout(self.tokens(tokens) + self.positions[: tokens.shape[1]])
        x = self.transformer(x, src_key_padding_mask=padding)
        present = (~padding).to(x.dtype).unsqueeze(2)
        return (x * present).sum(1) / present.sum(1)


_THEIR_NAMES = {
    "attention_norm": "norm1",
    "attention_in.": "self_attn.in_proj_",
    "attention_out": "self_attn.out_proj",
    "norm": "norm2",
    "expand": "linear1",
    "contract": "linear2",
}


def _their_name(name: str) -> str:
    """The name of a parameter of :class:`~curl_rl.encoders.TextEncoder` in a :class:`PlainTextEncoder`."""
    if not name.startswith("layers."):
        return f"transformer.{name}" if name.startswith("norm") else name
    _, number, own = name.split(".", 2)
    ours, theirs = next(pair for pair in _THEIR_NAMES.items() if own.startswith(pair[0]))
    return f"transformer.layers.{number}.{theirs}{own.removeprefix(ours)}"


def texts(batch: int, length: int, vocabulary: int) -> Tensor:
    """``(B, L)`` int64: random texts of a quarter of the length to all of it, all lengths equally likely."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(_SPECIAL, vocabulary, (batch, length), generator=generator)
    lengths = torch.randint(max(1, length // 4), length + 1, (batch, 1), generator=generator)
    lengths[0] = length  # a source cuts off what is padding in all texts
    return tokens.where(torch.arange(length) < lengths, PADDING)


def measure(device: torch.device, batch: int, rounds: int) -> list[Row]:
    """Rows for the encoder of the preset `cpu`, forward and backward in training, and for the losses of 256 pairs."""
    return [*_encoder_rows(device, batch, rounds), *_loss_rows(device, rounds)]


def _encoder_rows(device: torch.device, batch: int, rounds: int) -> list[Row]:
    config = load_preset("cpu")
    length, vocabulary = config.tokens.length, config.tokens.vocabulary
    tokens = texts(batch, length, vocabulary).to(device)
    torch.manual_seed(0)
    encoder = TextEncoder((vocabulary, 1, length), config.encoder.text).to(device)
    plain = PlainTextEncoder(encoder)
    precision = resolve_precision("auto", device)

    def step(network: Callable[[Tensor], Tensor], learned: list[nn.Parameter]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(network(tokens).square().sum(), learned)

    cases = {"plain": step(plain, list(plain.parameters()))}
    for name in dict.fromkeys((precision, "float32")):
        network = encoder.fresh(0)
        network.precision = name
        cases[name] = step(network, list(network.parameters()))
    description = f"text, {batch} × {length} tokens"
    seconds = side_by_side(cases, rounds=rounds, warm_up=1, device=device, description=description)

    present = int((tokens != PADDING).sum())
    rows = []
    padding = 1 - present / tokens.numel()
    for case in list(cases)[1:]:
        ours, theirs = (present / median(seconds[name]) for name in (case, "plain"))
        note = f"{ours:,.0f} tokens a second, plain {theirs:,.0f}; and {padding:.0%} padding"
        rows.append(
            compared(f"{encoder.title}, {batch} × {length} tokens, {case}", seconds["plain"], seconds[case], note)
        )
    return rows


class LossWork:
    """A loss of ours and the formula in plain PyTorch, on two vectors of each pair.

    Args:
        objective: SimCSE or CLIP, without heads; its metrics are part of its work.
        plain: of the two views' vectors ``(B, D)`` each.
        vectors: the two views', which require gradients.
    """

    def __init__(
        self, objective: Objective, plain: Callable[[Tensor, Tensor], Tensor], vectors: tuple[Tensor, Tensor]
    ) -> None:
        self._objective, self._plain, self._vectors = objective, plain, vectors
        self._features = [Features(vector, vector.new_empty(len(vector), 0)) for vector in vectors]
        # Numbers of pictures and captions, all different.
        numbers = torch.arange(len(vectors[0]), device=vectors[0].device)
        self._batch = BatchInfo(contents=torch.stack([numbers, numbers], 1))

    def ours(self) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The loss, and its gradients by both views."""
        return self._differentiated(self._objective(self._features, [], self._batch).loss)

    def plain(self) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The same of the plain formula."""
        return self._differentiated(self._plain(*self._vectors))

    def _differentiated(self, loss: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return loss.detach(), torch.autograd.grad(loss, self._vectors)


def loss_work(device: torch.device, pairs: int = PAIRS, dim: int = DIM) -> dict[str, LossWork]:
    """The losses by name, on random vectors; those of a pair are alike."""
    generator = torch.Generator().manual_seed(0)
    base, *noise = torch.randn(3, pairs, dim, generator=generator).to(device)
    first, second = (base + 0.5 * own for own in noise)
    vectors = first.requires_grad_(), second.requires_grad_()
    spec = FeatureSpec(dim, (dim, 1, 1))
    simcse = SimCSE(spec, SimCSEConfig(head=False)).to(device)
    clip = CLIP.build(spec, CLIPConfig(), DataSpec(text=spec)).to(device)
    for head in ("image_head", "text_head"):
        setattr(clip, head, nn.Identity())

    def plain_simcse(one: Tensor, other: Tensor) -> Tensor:
        # The released code's formula, without its (B, B, D) tensor.
        logits = F.normalize(one) @ F.normalize(other).T / simcse.config.temperature
        return F.cross_entropy(logits, torch.arange(len(one), device=device))

    def plain_clip(one: Tensor, other: Tensor) -> Tensor:
        logits = clip.logit_scale.exp() * F.normalize(one) @ F.normalize(other).T
        own = torch.arange(len(one), device=device)
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2

    return {"SimCSE": LossWork(simcse, plain_simcse, vectors), "CLIP": LossWork(clip, plain_clip, vectors)}


def _loss_rows(device: torch.device, rounds: int) -> list[Row]:
    work = loss_work(device)
    rows = []
    for name, case in work.items():
        cases: dict[str, Callable[[], object]] = {"plain": case.plain, "ours": case.ours}
        seconds = side_by_side(cases, rounds=10 * rounds, warm_up=3, device=device, description=f"loss of {name}")
        title = f"loss of {name}, {PAIRS} pairs of {DIM}"
        rows.append(compared(title, seconds["plain"], seconds["ours"], "target: 1 ms; ours with its metrics"))
    return rows
