"""IS-BERT against loops over the tokens that are there, and as DIM where all are."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curl_rl.encoders import Features, FeatureSpec, TextEncoder, TextEncoderConfig
from curl_rl.losses import jensen_shannon
from curl_rl.objectives import DIM, ISBERT, BatchInfo, DIMConfig, ISBERTConfig

SPEC = FeatureSpec(6, (6, 1, 5))
LENGTHS = (5, 2, 3)


def drawn(length: int = 5) -> Features:
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(3, 6, dtype=torch.float64, generator=generator)
    tokens = torch.randn(3, 6, 1, 5, dtype=torch.float64, generator=generator)
    present = torch.arange(5) < torch.tensor(LENGTHS)[:, None]
    return Features(vector, F.pad(tokens * present[:, None, None], (0, length - 5)))


def objective(config: ISBERTConfig, length: int = 5) -> ISBERT:
    torch.manual_seed(0)
    return ISBERT(FeatureSpec(6, (6, 1, length)), config).double()


def test_the_loss_is_the_mean_over_the_tokens_that_are_there() -> None:
    """As in the released code: positives over all tokens, negatives over all tokens and other sentences."""
    method, view = objective(ISBERTConfig((1,), 4)), drawn()
    assert method.local_pair is not None
    (window,) = method.windows
    assert isinstance(window, nn.Conv1d)
    query = method.local_pair.query(view.vector)
    positive, negative = [], []
    for sentence, length in enumerate(LENGTHS):
        for place in range(length):
            gram = F.relu(window.weight[..., 0] @ view.map[sentence, :, 0, place] + window.bias)
            positive.append(F.softplus(-(query[sentence] @ gram)))
            negative += [F.softplus(query[other] @ gram) for other in range(3) if other != sentence]
    assert len(positive) == sum(LENGTHS)
    expected = torch.stack(positive).mean() + torch.stack(negative).mean()
    torch.testing.assert_close(method([view], [], BatchInfo()).loss, expected)


def test_more_padding_changes_nothing() -> None:
    config = ISBERTConfig((1, 3), 4)
    short, long = objective(config), objective(config, length=8)
    long.load_state_dict(short.state_dict())
    one, other = (method([view], [], BatchInfo()) for method, view in ((short, drawn()), (long, drawn(8))))
    torch.testing.assert_close(one.loss, other.loss)
    assert one.metrics.keys() == other.metrics.keys()
    for name, value in one.metrics.items():
        torch.testing.assert_close(value, other.metrics[name])


def test_without_padding_and_with_tokens_as_they_are_it_is_dim() -> None:
    method, view = objective(ISBERTConfig((1,), 6)), drawn()
    view = view._replace(map=view.map.abs() + 0.1)
    (window,) = method.windows
    with torch.no_grad():
        window.weight.copy_(torch.eye(6)[..., None])  # type: ignore[operator, union-attr]
        window.bias.zero_()  # type: ignore[operator, union-attr]
    dim = DIM(SPEC, DIMConfig(heads="linear", pool=5)).double()
    assert dim.local_pair is not None
    assert method.local_pair is not None
    dim.local_pair.load_state_dict(method.local_pair.state_dict())
    one, other = method([view], [], BatchInfo()), dim([view], [], BatchInfo())
    torch.testing.assert_close(one.loss, other.loss)
    torch.testing.assert_close(one.metrics["accuracy"], other.metrics["accuracy"])


def test_a_window_sees_its_neighbors_and_no_further() -> None:
    torch.manual_seed(0)
    for size in (1, 3, 5):
        method = objective(ISBERTConfig((size,), 64))
        view = drawn()
        changed = view._replace(map=view.map.clone())
        changed.map[0, :, 0, 0] += 1
        differs = (method._places(view) != method._places(changed))[:, 0].any(1)
        assert differs.tolist() == [place <= size // 2 for place in range(5)]


def test_padding_is_known_by_the_text_encoders_map() -> None:
    torch.manual_seed(0)
    network = TextEncoder((20, 1, 5), TextEncoderConfig(6, 1, 2))
    tokens = torch.tensor([[1, 4, 5, 6, 2], [1, 2, 0, 0, 0], [1, 7, 2, 0, 0]])
    assert torch.equal(objective(ISBERTConfig())._present(network.encode(tokens)), (tokens != 0).T)


@pytest.mark.parametrize("kept", [[(0, 0), (1, 1), (1, 0)], [(0, 1), (0, 0), (1, 0), (1, 1)]])
def test_jensen_shannon_of_some_places_is_that_of_their_scores_alone(kept: list[tuple[int, int]]) -> None:
    scores: Tensor = torch.randn(2, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    present = torch.zeros(2, 2, dtype=torch.bool)
    for place, sample in kept:
        present[place, sample] = True
    positive = torch.stack([F.softplus(-scores[place, sample, sample]) for place, sample in kept]).mean()
    negative = torch.stack([F.softplus(scores[place, 1 - sample, sample]) for place, sample in kept]).mean()
    torch.testing.assert_close(jensen_shannon(scores, present), positive + negative)


def test_windows_are_odd() -> None:
    with pytest.raises(ValueError, match=r"^objectives\.is_bert\.windows must be one or more different odd sizes"):
        ISBERTConfig((1, 2))
