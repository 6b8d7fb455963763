"""Hidden tokens: how many, what is seen in their place, and that they can be found again."""

from __future__ import annotations

import pytest
import torch

from curl_rl.text.masking import mask_tokens
from curl_rl.text.tokenizer import SPECIAL, START

VOCABULARY, LENGTH = 1000, 20
END = 2


@pytest.fixture(scope="module")
def texts() -> torch.Tensor:
    """3,000 texts of 3 to 20 tokens."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(SPECIAL, VOCABULARY, (3000, LENGTH), generator=generator)
    lengths = torch.randint(3, LENGTH + 1, (3000, 1), generator=generator)
    place = torch.arange(LENGTH)
    tokens = tokens.where(place > 0, START).where(place < lengths, 0)
    return tokens.where(place != lengths - 1, END)


def masked(texts: torch.Tensor, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    return mask_tokens(texts, VOCABULARY, torch.Generator().manual_seed(seed))


def test_hidden_tokens_are_those_of_the_text_and_all_others_are_seen(texts: torch.Tensor) -> None:
    seen, hidden = masked(texts)
    for text, view, pairs in zip(texts[:200].tolist(), seen.tolist(), hidden.tolist(), strict=False):
        found = {place: token for place, token in pairs if token}
        assert len(found) == sum(token > 0 for _, token in pairs), "no place is hidden twice"
        for place, token in enumerate(text):
            if place in found:
                assert token == found[place] >= SPECIAL
            else:
                assert view[place] == token
    assert (hidden[..., 1] > 0).any(0).all(), "as many columns as the text with most hidden tokens needs"


def test_shares_are_those_of_the_paper(texts: torch.Tensor) -> None:
    seen, hidden = masked(texts)
    real = hidden[..., 1] > 0
    row = torch.arange(len(texts)).unsqueeze(1).expand_as(real)[real]
    place, token = hidden[real].unbind(1)
    shown, count = seen[row, place], len(token)

    def near(share: float, expected: float, of: int) -> bool:
        return abs(share - expected) < 4 * (expected * (1 - expected) / of) ** 0.5

    words = int((texts >= SPECIAL).sum())
    assert near(count / words, 0.15, words)
    assert near(float((shown == START).float().mean()), 0.8, count)
    assert near(float((shown == token).float().mean()), 0.1, count)  # and a random token in 997
    others = shown[(shown != START) & (shown != token)]
    assert near(len(others) / count, 0.1, count)
    assert int(others.min()) >= SPECIAL
    assert len(others.unique()) > 0.3 * len(others), "random tokens differ"


def test_the_generator_decides(texts: torch.Tensor) -> None:
    one, again, other = masked(texts), masked(texts), masked(texts, seed=2)
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not torch.equal(one[0], other[0])


def test_a_text_without_hidden_tokens_has_rows_of_zeros() -> None:
    seen, hidden = masked(torch.tensor([[START, END, 0]]))
    assert seen.tolist() == [[START, END, 0]]
    assert hidden.tolist() == [[[0, 0]]]
