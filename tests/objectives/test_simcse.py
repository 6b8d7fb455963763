"""SimCSE's loss against numbers worked out term by term, and on a text encoder of one's own in ten lines."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from curl_rl import AuxiliaryLoss
from curl_rl.encoders import Features, FeatureSpec, TextEncoder, TextEncoderConfig
from curl_rl.objectives import BatchInfo, DataSpec, ObjectiveUser, SimCSE, SimCSEConfig, build_objective, registry

SPEC = FeatureSpec(3, (3, 1, 5))
PLAIN = SimCSEConfig(head=False)
HARD = SimCSEConfig(temperature=0.5, head=False, hard_negatives=True)


def features(vectors: Tensor) -> Features:
    return Features(vectors, vectors.new_empty(len(vectors), 0))


def drawn(rows: int, views: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, SPEC.dim, dtype=torch.float64, generator=generator) for _ in range(views)]


def loss_of(config: SimCSEConfig, views: list[Tensor]) -> float:
    result = SimCSE(SPEC, config)([features(view) for view in views], [], BatchInfo())
    return float(result.loss)


def cosine(one: Tensor, other: Tensor) -> float:
    return float(one @ other / (one.norm() * other.norm()))


def by_hand(config: SimCSEConfig, views: list[Tensor], own_weight: float) -> float:
    """Equation 1 with hard negatives in the denominator, each term by itself."""
    total = 0.0
    for i, sentence in enumerate(views[0]):
        positives = [math.exp(cosine(sentence, other) / config.temperature) for other in views[1]]
        denominator = sum(positives)
        for j, other in enumerate(views[2] if len(views) > 2 else []):
            weight = own_weight if i == j else 1.0
            denominator += weight * math.exp(cosine(sentence, other) / config.temperature)
        total -= math.log(positives[i] / denominator)
    return total / len(views[0])


def test_the_loss_is_the_cross_entropy_of_cosines_term_by_term() -> None:
    views = drawn(4, 2)
    assert loss_of(PLAIN, views) == pytest.approx(by_hand(PLAIN, views, 1.0), rel=1e-12)
    assert loss_of(PLAIN, [5 * views[0], views[1]]) == pytest.approx(loss_of(PLAIN, views), rel=1e-12)


@pytest.mark.parametrize("weight", [1.0, 3.0, 0.25])
def test_hard_negatives_join_the_denominator_with_the_own_ones_weight(weight: float) -> None:
    views = drawn(3, 3)
    config = SimCSEConfig(0.5, False, True, weight)
    assert loss_of(config, views) == pytest.approx(by_hand(HARD, views, weight), rel=1e-12)


def test_two_sentences_with_hard_negatives_by_hand() -> None:
    """Cosines of 1 with the own positive and of 0 with all others but the own hard negative, 0.6."""
    sentence = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]], dtype=torch.float64)
    hard = torch.tensor([[0.6, 0, 0.8], [0, 0.6, 0.8]], dtype=torch.float64)
    own = math.exp(1 / 0.5)
    expected = -math.log(own / (own + 1 + 2.0 * math.exp(0.6 / 0.5) + 1))
    assert loss_of(SimCSEConfig(0.5, False, True, 2.0), [sentence, sentence, hard]) == pytest.approx(
        expected, rel=1e-12
    )


def test_a_vanishing_weight_leaves_the_own_hard_negative_out() -> None:
    views = drawn(3, 3)
    config = SimCSEConfig(0.5, False, True, 1e-300)
    assert loss_of(config, views) == pytest.approx(by_hand(HARD, views, 0.0), rel=1e-12)


def test_the_own_hard_negative_can_be_the_positive_of_none() -> None:
    """A hard negative equal to the positive takes half of its probability: a confident loss becomes ln 2."""
    sentence = torch.eye(3, dtype=torch.float64)
    sure = SimCSEConfig(0.01, False, True)
    assert loss_of(sure, [sentence, sentence, sentence]) == pytest.approx(math.log(2), abs=1e-12)
    assert loss_of(PLAIN, [sentence, sentence]) == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize("count", [2, 5])
def test_equal_sentences_cannot_be_told_apart(count: int) -> None:
    same = torch.ones(count, 3, dtype=torch.float64)
    for config in (PLAIN, SimCSEConfig()):
        objective = SimCSE(SPEC, config).double()
        loss = objective([features(same), features(same)], [], BatchInfo()).loss
        assert float(loss.detach()) == pytest.approx(math.log(count), rel=1e-12)


def encoder(dropout: float) -> TextEncoder:
    torch.manual_seed(0)
    return TextEncoder((20, 1, 5), TextEncoderConfig(8, 1, 2, dropout=dropout)).double()


def test_without_dropout_two_passes_are_equal_and_the_loss_is_known() -> None:
    tokens = torch.randint(1, 20, (6, 5), generator=torch.Generator().manual_seed(0))
    objective = SimCSE(FeatureSpec(8, (8, 1, 5)), PLAIN)
    for dropout in (0.0, 0.1):
        network = encoder(dropout)
        passes = [network.encode(tokens) for _ in range(2)]
        result = objective(passes, [], BatchInfo())
        if dropout:
            assert result.metrics["alignment"] > 1e-4
            continue
        assert result.metrics["alignment"] == 0
        unit = torch.nn.functional.normalize(passes[0].vector)
        expected = (unit @ unit.T / 0.05).logsumexp(1).mean() - 1 / 0.05
        torch.testing.assert_close(result.loss, expected)


class BagOfWords(nn.Module):
    """Someone's text encoder."""

    feature_spec = FeatureSpec(16, (16, 1, 1))

    def __init__(self) -> None:
        super().__init__()
        self.words, self.noise = nn.EmbeddingBag(50, 16, padding_idx=0), nn.Dropout(0.1)

    def encode(self, tokens: Tensor) -> Features:
        vector = self.noise(self.words(tokens))
        return Features(vector, vector[:, :, None, None])


def test_ten_lines_train_a_text_encoder_of_your_own() -> None:
    torch.manual_seed(0)
    encoder = BagOfWords()
    aux = AuxiliaryLoss(encoder, "simcse")
    optimizer = torch.optim.Adam([*encoder.parameters(), *aux.new_parameters()], lr=1e-2)
    tokens = torch.randint(1, 50, (64, 8))
    before = encoder.words.weight.detach().clone()
    for _ in range(20):
        loss = aux(tokens)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert aux.metrics["alignment"] > 0
    assert not torch.equal(encoder.words.weight, before)
    assert not encoder.words.weight[0].any(), "padding stays"
    # In evaluation there is no dropout, so the two passes are one: the closed form of the test above, with the head.
    aux.eval()
    with torch.no_grad():
        loss = aux(tokens)
        encoder.eval()
        unit = torch.nn.functional.normalize(aux.objective.head(encoder.encode(tokens).vector))  # type: ignore[operator]
    assert aux.metrics["alignment"] == 0
    torch.testing.assert_close(loss, (unit @ unit.T / 0.05).logsumexp(1).mean() - 1 / 0.05, atol=1e-5, rtol=1e-4)


def test_pairs_and_hard_negatives_are_given_beside_the_sentences() -> None:
    torch.manual_seed(0)
    encoder = BagOfWords().eval()
    objective = SimCSE(encoder.feature_spec, HARD)
    aux = AuxiliaryLoss(encoder, objective)
    texts = torch.randint(1, 50, (3, 4, 8))
    expected = objective([encoder.encode(text) for text in texts], [], BatchInfo()).loss
    assert torch.equal(aux(texts[0], later=[texts[1], texts[2]]), expected)


def test_crops_and_pads_are_for_images() -> None:
    with pytest.raises(ValueError, match="^crop and pad must be left out for texts, got crop 4 and pad 0$"):
        AuxiliaryLoss(BagOfWords(), "simcse", crop=4)


@pytest.mark.parametrize("method", ["simcse", "quick_thoughts", "is_bert"])
def test_users_without_texts_name_the_command_that_has_them(method: str) -> None:
    user = ObjectiveUser("method", "a folder", frozenset({"labels", "indices", "actions", "epochs"}))
    line = rf"^method {method} needs text, which a folder does not have: take \w+ \(scripts/pretrain_text\.py trains on"
    with pytest.raises(ValueError, match=line):
        build_objective(method, SPEC, user=user)


@pytest.mark.parametrize(
    ("tokens", "later", "line"),
    [
        (torch.ones(2, 3, dtype=torch.int64), 0, "later must hold the tokens of the 2 views after the first, got 0"),
        (
            torch.ones(2, 3),
            2,
            r"tokens must be \(B, L\) int64, as many texts for each view, got torch.float32 \(2, 3\)",
        ),
        (torch.ones(2, dtype=torch.int64), 2, r"tokens must be \(B, L\) int64"),
    ],
)
def test_what_are_no_texts_is_refused(tokens: Tensor, later: int, line: str) -> None:
    encoder = BagOfWords()
    aux = AuxiliaryLoss(encoder, SimCSE(encoder.feature_spec, HARD))
    with pytest.raises(ValueError, match=f"^{line}"):
        aux(tokens, later=[tokens] * later)


def test_hidden_tokens_are_predicted_from_their_places_term_by_term() -> None:
    torch.manual_seed(0)
    config = SimCSEConfig(head=False, masked_weight=0.3)
    objective = SimCSE(SPEC, config, vocabulary=7).double()
    first, second, vector = drawn(3, 3)
    places = torch.randn(3, 3, 1, 5, dtype=torch.float64)
    # The first text hides two tokens, the second one, the third none.
    hidden = torch.tensor([[[4, 6], [1, 2]], [[0, 3], [0, 0]], [[0, 0], [0, 0]]])
    head = objective.token_head
    assert head is not None
    terms = []
    for text, place, token in [(0, 4, 6), (0, 1, 2), (1, 0, 3)]:
        scores = head(places[text, :, 0, place])
        terms.append(scores.exp().sum().log() - scores[token])
    views = [features(first), features(second), Features(vector, places)]
    result = objective(views, [], BatchInfo(hidden=hidden))
    contrast = by_hand(PLAIN, [first, second], 1.0)
    assert float(result.loss.detach()) == pytest.approx(contrast + 0.3 * float(sum(terms).detach()) / 3, rel=1e-12)  # type: ignore[union-attr]
    assert float(result.metrics["token_loss"]) == pytest.approx(float(sum(terms).detach()) / 3, rel=1e-12)  # type: ignore[union-attr]
    nothing = objective(views, [], BatchInfo(hidden=torch.zeros_like(hidden)))
    assert float(nothing.loss.detach()) == pytest.approx(contrast, rel=1e-12)
    assert nothing.metrics["token_accuracy"] == 0


def test_sure_predictions_of_hidden_tokens_are_accurate() -> None:
    objective = SimCSE(SPEC, SimCSEConfig(masked_weight=1.0), vocabulary=4).double()
    objective.token_head = nn.Linear(3, 4, bias=False).double()
    with torch.no_grad():
        objective.token_head.weight.copy_(torch.eye(4, 3))
    place = torch.eye(3, dtype=torch.float64).mul(90).T.unsqueeze(1).expand(2, 3, 1, 3)  # place i says token i
    first, second = drawn(2, 2)
    right = torch.tensor([[[1, 1]], [[2, 2]]])
    for hidden, accuracy in ((right, 1), (torch.tensor([[[1, 1]], [[1, 2]]]), 0.5)):
        batch = BatchInfo(hidden=hidden)
        metrics = objective([features(first), features(second), Features(first, place)], [], batch).metrics
        assert metrics["token_accuracy"] == accuracy
        assert float(metrics["token_loss"]) == pytest.approx(90 * (1 - accuracy), abs=1e-9)


def test_hidden_tokens_need_their_number_and_a_source_that_hides_them() -> None:
    config = registry.ObjectiveConfigs(simcse=SimCSEConfig(masked_weight=0.1))
    with pytest.raises(
        ValueError, match=r"^objectives\.simcse\.masked_weight needs the number of tokens, got none: give"
    ):
        build_objective("simcse", SPEC, config)
    user = ObjectiveUser("method", "a folder", frozenset({"text"}))
    with pytest.raises(ValueError, match=r"^method simcse needs hidden, which a folder does not have: take"):
        build_objective("simcse", SPEC, config, DataSpec(vocabulary=9), user)
    assert build_objective("simcse", SPEC, None, DataSpec(), user) is not None


def test_masked_texts_are_given_last_in_your_own_loop() -> None:
    torch.manual_seed(0)
    encoder = TextEncoder((20, 1, 5), TextEncoderConfig(8, 1, 2, dropout=0.0))
    objective = SimCSE(encoder.feature_spec, SimCSEConfig(masked_weight=0.5), vocabulary=20)
    aux = AuxiliaryLoss(encoder, objective)
    texts = torch.randint(3, 20, (4, 5))
    masked, hidden = texts.clone(), torch.tensor([[[2, 0]]]).repeat(4, 1, 1)
    masked[:, 2], hidden[:, 0, 1] = 1, texts[:, 2]
    views = [encoder.encode(text) for text in (texts, texts, masked)]
    expected = objective(views, [], BatchInfo(hidden=hidden)).loss
    torch.testing.assert_close(aux(texts, later=[texts, masked], batch=BatchInfo(hidden=hidden)), expected)
    with pytest.raises(ValueError, match=r"^batch must hold hidden, which SimCSE needs, got none"):
        aux(texts, later=[texts, masked])
