"""A Transformer from the tokens of a text to features (Vaswani et al. 2017, arXiv 1706.03762), pre-norm as in GPT-2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curl_rl.encoders.base import Encoder, Features, FeatureSpec, Precision, weights_from
from curl_rl.ranges import at_least, check_ranges, within

PADDING = 0
"""The token that fills a row up after the end of its text. Tokenizers must give it no other meaning."""


@dataclass(frozen=True)
class TextEncoderConfig:
    """Shape of a text encoder, and its noise in training."""

    width: Annotated[int, at_least(1)] = 256
    """Size of the vector, and of each token's features."""
    layers: Annotated[int, at_least(1)] = 4
    """Number of Transformer layers."""
    heads: Annotated[int, at_least(1)] = 4
    """Attention heads in each layer; must divide the width."""
    pool: Literal["mean", "end", "first"] = "mean"
    """The vector. mean: of all tokens' features. end: the last token's. first: the first token's, as in BERT."""
    causal: bool = False
    """Let each token see only those before it, as in CLIP's text encoder (with pool end)."""
    dropout: Annotated[float, within("[0, 1)")] = 0.1
    """Probability of dropout, in training, in the embeddings, the attention weights and each layer's two outputs."""
    cutoff: Literal["none", "token", "feature", "span"] = "none"
    """What is cut off from the embeddings in training, by setting it to 0 (Shen et al. 2020, arXiv 2009.13818). token:
    some tokens. feature: some features of all tokens. span: consecutive tokens."""
    cutoff_rate: Annotated[float, within("[0, 1)")] = 0.15
    """Share of the tokens or features that are cut off."""

    def __post_init__(self) -> None:
        check_ranges(self, "encoder.text")
        if self.width % self.heads:
            raise ValueError(f"encoder.text.heads must divide width {self.width}, got {self.heads}")
        if self.causal and self.pool == "first":
            raise ValueError("encoder.text.pool must be end or mean with causal true, got first: it sees nothing else")


class TextEncoder(Encoder):
    """A pre-norm Transformer encoder. Padding has no influence on any feature of a text.

    Args:
        input_shape: ``(V, 1, L)``: V tokens in the vocabulary, the first of which is padding, and at most L tokens in a
            text. A text is thus an image of 1 row and L columns with a channel for each token, given by the numbers
            of the channels that are set.
        config: the shape.
        precision: type that the network computes in; weights, vector and map keep the parameters'.

    ``encoder(tokens)`` takes ``(B, l)`` int64, l ≤ L, each row a text followed by padding, and returns ``(B, width)``.
    The map is ``(B, width, 1, l)``, the features of each token, and 0 at padding. The noise of the training mode is
    drawn from torch's global generator of the device.

    Raises:
        ValueError: ``input_shape`` is not as above.
    """

    kind: ClassVar[str] = "text"
    any_size: ClassVar[bool] = True

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        config: TextEncoderConfig = TextEncoderConfig(),
        precision: Precision = "float32",
    ) -> None:
        super().__init__()
        vocabulary, rows, length = input_shape
        if rows != 1 or vocabulary < 2 or length < 1:
            raise ValueError(
                f"input_shape must be (V, 1, L), V at least 2 tokens and L at least 1, got {tuple(input_shape)}"
            )
        self.text_shape, self.config, self.precision = (vocabulary, 1, length), config, precision
        self.tokens = nn.Embedding(vocabulary, config.width)
        self.positions = nn.Parameter(torch.empty(length, config.width))
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self._initialize()

    def _initialize(self) -> None:
        """As in CLIP (arXiv 2103.00020): its released code's ``initialize_parameters``."""
        width, layers = self.config.width, self.config.layers
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.01)
        for layer in self.layers:
            assert isinstance(layer, _Layer)
            nn.init.normal_(layer.attention_in.weight, std=width**-0.5)
            nn.init.normal_(layer.expand.weight, std=(2 * width) ** -0.5)
            for last in (layer.attention_out, layer.contract):  # the sum of all layers keeps its size
                nn.init.normal_(last.weight, std=(width * 2 * layers) ** -0.5)
            for linear in (layer.attention_in, layer.attention_out, layer.expand, layer.contract):
                nn.init.zeros_(linear.bias)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """``(V, 1, L)``."""
        return self.text_shape

    @property
    def vocabulary(self) -> int:
        """Number of tokens, padding included."""
        return self.text_shape[0]

    @property
    def length(self) -> int:
        """Largest number of tokens in a text."""
        return self.text_shape[2]

    @property
    def feature_spec(self) -> FeatureSpec:
        """Vector and map of a text of full length."""
        return FeatureSpec(self.config.width, (self.config.width, 1, self.length))

    @property
    def title(self) -> str:
        """Layers and width."""
        layers = self.config.layers
        return f"Transformer, {layers} layer{'' if layers == 1 else 's'} of {self.config.width}"

    def encode(self, tokens: Tensor) -> Features:
        """``(B, l)`` int64 to vector ``(B, width)`` and map ``(B, width, 1, l)``.

        A row of padding alone has finite features that mean nothing.
        """
        if tokens.ndim != 2 or tokens.dtype != torch.int64 or not 1 <= tokens.shape[1] <= self.length:
            raise ValueError(
                f"tokens must be (B, l) int64 with l from 1 to {self.length}, got {tuple(tokens.shape)} {tokens.dtype}"
            )
        length, present = tokens.shape[1], tokens != PADDING
        # Set explicitly in both cases, because the caller's autocast would override the precision.
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            x = self.tokens(tokens) + self.positions[:length]
            if self.training and self.config.cutoff != "none":
                x = cut_off(x, present, self.config.cutoff, self.config.cutoff_rate)
            x = F.dropout(x, self.config.dropout, self.training)
            seen = _seen(present, causal=self.config.causal)
            for layer in self.layers:
                x = layer(x, seen)
            x = self.norm(x)
        x = x.to(self.positions.dtype)
        return Features(self._pooled(x, present), (x * present.unsqueeze(2)).transpose(1, 2).unsqueeze(2))

    def _pooled(self, x: Tensor, present: Tensor) -> Tensor:
        if self.config.pool == "first":
            return x[:, 0]
        if self.config.pool == "mean":
            weights = present.to(x.dtype)
            return (x * weights.unsqueeze(2)).sum(1) / weights.sum(1, keepdim=True).clamp(min=1)
        # By the mask: a tokenizer need not give the end the highest id.
        end = (present * torch.arange(present.shape[1], device=x.device)).amax(1)
        return x.gather(1, end.view(-1, 1, 1).expand(-1, 1, x.shape[2])).squeeze(1)

    def fresh(self, seed: int) -> TextEncoder:
        with weights_from(seed):
            new = TextEncoder(self.text_shape, self.config, self.precision)
        return new.to(self.positions)

    def describe(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "observation_shape": list(self.text_shape),
            "preprocessing": f"tokens of a text by the tokenizer it was trained with, then {PADDING} as padding",
            "config": asdict(self.config),
        }

    @classmethod
    def from_description(cls, input_shape: tuple[int, int, int], config: Mapping[str, Any]) -> TextEncoder:
        return cls(input_shape, TextEncoderConfig(**config))


class _Layer(nn.Module):
    """Self-attention and two linear layers on each token, both as residuals on normalized inputs."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        width, self.heads, self.dropout = config.width, config.heads, config.dropout
        self.attention_norm, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention_in, self.attention_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.expand, self.contract = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """``(B, L, width)`` to the same; ``seen`` is ``(B, 1, 1 or L, L)``, which tokens each one attends to."""
        dropped = self.dropout if self.training else 0.0
        projected = self.attention_in(self.attention_norm(x)).unflatten(2, (3, self.heads, -1))
        query, key, value = projected.permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=seen, dropout_p=dropped)
        x = x + F.dropout(self.attention_out(attended.transpose(1, 2).flatten(2)), self.dropout, self.training)
        return x + F.dropout(self.contract(F.gelu(self.expand(self.norm(x)))), self.dropout, self.training)


def _seen(present: Tensor, *, causal: bool) -> Tensor:
    """``(B, L)`` to ``(B, 1, 1, L)`` or, causal, ``(B, 1, L, L)``: True where a token (row) sees another (column)."""
    length = present.shape[1]
    # All see the first: a softmax over nothing, in a row of padding, would be NaN.
    seen = present | (torch.arange(length, device=present.device) == 0)
    seen = seen[:, None, None, :]
    return seen & torch.ones(length, length, dtype=torch.bool, device=present.device).tril() if causal else seen


def cut_off(x: Tensor, present: Tensor, what: Literal["token", "feature", "span"], rate: float) -> Tensor:
    """Sets random tokens, features or spans of tokens to 0, in each text its own (arXiv 2009.13818, section 3.1).

    Args:
        x: ``(B, L, D)`` embeddings.
        present: ``(B, L)``, False at padding.
        what: ``token``: each token with probability ``rate``. ``feature``: each feature, in all tokens, with
            probability ``rate``. ``span``: a share ``rate`` of the text's tokens, in a row, wherever they fit.
        rate: in [0, 1).

    Returns:
        ``(B, L, D)``; the other values are unchanged.
    """
    batch, length, dim = x.shape
    if what == "feature":
        return x * (torch.rand(batch, 1, dim, device=x.device) >= rate)
    if what == "token":
        return x * (torch.rand(batch, length, 1, device=x.device) >= rate)
    count = present.sum(1, keepdim=True)
    cut = (rate * count).round()
    first = (torch.rand(batch, 1, device=x.device) * (count - cut + 1)).floor()
    place = torch.arange(length, device=x.device)
    return x * ((place < first) | (place >= first + cut)).unsqueeze(2)
