"""Texts as rows of tokens: byte-level BPE by the library ``tokenizers`` (Sennrich et al. 2016, arXiv 1508.07909).

The alphabet is all bytes, so no text is unknown; texts are normalized (NFKC) and in lower case. A tokenizer is one JSON
file, in that library's format, which holds no code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from curl_rl.encoders.text import PADDING
from curl_rl.installation import installation_of
from curl_rl.runs.errors import UserError, one_line
from curl_rl.runs.files import read_file, write_durably

if TYPE_CHECKING:
    import tokenizers

TOKENIZER = "tokenizer.json"
"""Name of a tokenizer's file in a run, beside the encoder."""
SMALLEST = 259
"""Tokens of the smallest vocabulary: the special ones and all bytes."""

_SPECIAL = ("[pad]", "[start]", "[end]")
START = _SPECIAL.index("[start]")
"""Number of the token that begins every text, and is nowhere else in it."""
END = _SPECIAL.index("[end]")
"""Number of the token that ends every text."""
SPECIAL = len(_SPECIAL)
"""Number of special tokens, which come before all others."""
_NAME_ONE = f"name a {TOKENIZER}, or a run of scripts/pretrain_text.py, which has one"
_LARGEST_FILE = 2**27  # bytes; a vocabulary of a million tokens has about half of that


class Tokenizer:
    """A trained tokenizer.

    Args:
        content: its JSON.

    Raises:
        UserError: the library is missing, or the content is not a tokenizer of this package.
    """

    def __init__(self, content: str) -> None:
        library = _library()
        self.content = content
        """Its JSON, as saved."""
        try:
            self._tokenizer: tokenizers.Tokenizer = library.Tokenizer.from_str(content)
        except Exception as error:  # the library raises nothing more specific
            raise UserError(f"the tokenizer is damaged, or none ({one_line(error)}): {_NAME_ONE}") from None
        found = [self._tokenizer.token_to_id(name) for name in _SPECIAL]
        if found != [PADDING, *range(PADDING + 1, len(_SPECIAL))]:
            raise UserError(
                f"a tokenizer must have {', '.join(_SPECIAL)} as its first tokens, got the numbers {found}: "
                "let pretrain_text.py train it"
            )
        self._start, self._end = found[1:]
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        # A text that spells [pad] is a text.
        self._tokenizer.encode_special_tokens = True

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary: int = 8192) -> Tokenizer:
        """Trains a tokenizer.

        Args:
            texts: the texts, of any number.
            vocabulary: largest number of tokens, at least :data:`SMALLEST`; texts without enough repetition give fewer.

        Raises:
            UserError: the library is missing.
            ValueError: the vocabulary is too small.
        """
        if vocabulary < SMALLEST:
            raise ValueError(f"vocabulary must be at least {SMALLEST}, all bytes and {len(_SPECIAL)}, got {vocabulary}")
        library = _library()
        tokenizer = library.Tokenizer(library.models.BPE())
        tokenizer.normalizer = library.normalizers.Sequence(
            [library.normalizers.NFKC(), library.normalizers.Lowercase()]
        )
        # With a space before the first word, it has the same tokens as elsewhere.
        tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = library.decoders.ByteLevel()
        trainer = library.trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=list(_SPECIAL),
            initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        return cls(tokenizer.to_str())

    @classmethod
    def load(cls, path: Path | str) -> Tokenizer:
        """Reads a file written by :meth:`save`; ``path`` may also be the directory of a run.

        Raises:
            UserError: the file is missing, too large or damaged, or the library is missing.
        """
        path = Path(path)
        path = path / TOKENIZER if path.is_dir() else path
        try:
            return cls(read_file(path, _LARGEST_FILE).decode())
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        except FileNotFoundError:
            raise UserError(f"no tokenizer {path}: {_NAME_ONE}") from None
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read as a tokenizer ({one_line(error)}): {_NAME_ONE}") from None

    def save(self, directory: Path) -> None:
        """Writes ``tokenizer.json`` into a directory, atomically."""
        write_durably(directory / TOKENIZER, [self.content.encode()])

    @property
    def sha256(self) -> str:
        """SHA-256 of the file, as hexadecimal digits."""
        return hashlib.sha256(self.content.encode()).hexdigest()

    @property
    def vocabulary(self) -> int:
        """Number of tokens, the special ones included."""
        return self._tokenizer.get_vocab_size()

    def encode(self, texts: Sequence[str], length: int) -> Tensor:
        """Texts as rows of tokens, ``(B, length)`` int64: a start, the text, an end, then padding.

        Longer texts lose their last tokens, and keep the end.

        Raises:
            ValueError: ``length`` leaves no room for a text.
        """
        if length < 3:
            raise ValueError(f"length must be at least 3, for a start, a token and an end, got {length}")
        rows = torch.full((len(texts), length), PADDING)
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        for row, text in zip(rows, encoded, strict=True):
            ids = [self._start, *text.ids[: length - 2], self._end]
            row[: len(ids)] = torch.tensor(ids)
        return rows

    def decode(self, row: Tensor) -> str:
        """The text of a row of tokens, normalized; for pictures and messages."""
        return self._tokenizer.decode(row.tolist(), skip_special_tokens=True).strip()


def without_padding(tokens: Tensor) -> Tensor:
    """``(B, L)`` rows of tokens to ``(B, l)``, without the columns that are padding in all rows."""
    return tokens[:, (tokens != PADDING).any(0)]


def _library() -> Any:
    """The library, imported only where it is used.

    Raises:
        UserError: it is missing; the message names the extra.
    """
    try:
        import tokenizers
        import tokenizers.decoders
        import tokenizers.models
        import tokenizers.normalizers
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "tokenizers":
            raise
        raise UserError(f"texts need tokenizers: {installation_of('text')}") from None
    return tokenizers
