"""InstDisc against its algorithm written out, what its bank holds, and closed forms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from curl_rl import AuxiliaryLoss, PixelEncoder
from curl_rl.encoders import EncoderConfig
from curl_rl.objectives import (
    BatchInfo,
    DataSpec,
    Features,
    FeatureSpec,
    InstDisc,
    InstDiscConfig,
    ObjectiveUser,
    Result,
    build_objective,
)
from helpers.random_tensors import draw, unit

COUNT = 7
SPEC = FeatureSpec(3, (2, 3, 3))
STILL = torch.tensor(1.0)


def make(count: int = COUNT, *, known: Tensor | None = None, **settings: Any) -> InstDisc:
    """With the identity as its head, and these rows in its bank."""
    objective = InstDisc(SPEC, InstDiscConfig(**({"dim": 3} | settings)), count=count).double()
    objective.head = nn.Identity()  # type: ignore[assignment]
    if known is not None:
        indices = torch.arange(count)
        for some in indices.split(3):
            objective.remember(features(known[some]), BatchInfo(some))
    return objective


def features(vectors: Tensor) -> Features:
    return Features(vectors, torch.zeros(len(vectors), *SPEC.map_shape))


def loss_of(objective: InstDisc, vectors: Tensor, indices: Tensor) -> Result:
    result: Result = objective([features(vectors)], [], BatchInfo(indices))
    return result


def test_four_images_by_hand() -> None:
    e = torch.eye(3, dtype=torch.float64)
    objective = make(4, known=torch.stack([e[0], e[1], -e[0], e[0] + e[1]]), temperature=0.5)
    # Image 3's new embedding is (1, 0, 0): cosines 1, 0 and -1 with the other rows, 1/√2 with its own.
    own, others = math.exp(2 / math.sqrt(2)), math.exp(2) + math.exp(0) + math.exp(-2)
    result = loss_of(objective, 5 * e[:1], torch.tensor([3]))
    assert result.loss.item() == pytest.approx(-math.log(own / (own + others)), rel=1e-12)
    assert result.metrics["accuracy"] == 0
    assert result.metrics["alignment"].item() == pytest.approx(2 - math.sqrt(2), rel=1e-12)


@pytest.mark.parametrize("loss", ["softmax", "nce"])
@pytest.mark.parametrize("negatives", [100, 3])
def test_many_steps_are_the_algorithm_written_out(loss: Any, negatives: int) -> None:
    """Rows move by half and are scaled to length 1 after the step; parts of the bank take turns."""
    bank = unit(COUNT, 3, seed=50).numpy()
    objective = make(known=torch.from_numpy(bank), loss=loss, negatives=negatives, temperature=0.3, proximal=0.7)
    bank, size, average = bank.copy(), min(negatives, COUNT), 0.0
    for step, indices in enumerate([[0, 4, 2], [6, 1, 4], [5, 3, 0], [2, 0, 6], [1, 3, 4]]):
        view = draw(3, 3, seed=step).numpy()
        view /= np.linalg.norm(view, axis=1, keepdims=True)
        window = [(step * size + place) % COUNT for place in range(size)]
        positives, negative_scores = [], []
        for embedding, i in zip(view, indices, strict=True):
            positives.append(math.exp(bank[i] @ embedding / 0.3))
            negative_scores.append([math.exp(bank[j] @ embedding / 0.3) for j in window if j != i])
        everything = [*positives, *(score for row in negative_scores for score in row)]
        newest = COUNT * float(np.mean(everything))
        z = average if step else newest
        average = 0.99 * average + 0.01 * newest if step else newest
        expected = 0.0
        for embedding, i, own, others in zip(view, indices, positives, negative_scores, strict=True):
            expected += 0.7 * float(np.sum((embedding - bank[i]) ** 2)) / 3
            if loss == "softmax":
                expected -= math.log(own / (own + sum(others))) / 3
                continue
            m = len(others)
            h = own / z / (own / z + m / COUNT)
            noise = [(m / COUNT) / (other / z + m / COUNT) for other in others]
            expected -= (math.log(h) + sum(map(math.log, noise))) / 3
        result = loss_of(objective, torch.from_numpy(4 * view), torch.tensor(indices))
        assert result.loss.item() == pytest.approx(expected, rel=1e-9), step
        objective.after_step(result.carry, STILL)
        for embedding, i in zip(view, indices, strict=True):
            row = 0.5 * bank[i] + 0.5 * embedding
            bank[i] = row / np.linalg.norm(row)
        assert np.allclose(objective.bank.embeddings.numpy(), bank, rtol=1e-10), step


@pytest.mark.parametrize("count", [4, 31])
def test_images_that_look_alike_are_told_apart_by_chance(count: int) -> None:
    same = torch.ones(count, 3, dtype=torch.float64)
    indices = torch.arange(count)
    softmax, nce = (loss_of(make(count, known=same, loss=loss), same, indices) for loss in ("softmax", "nce"))
    assert softmax.loss.item() == pytest.approx(math.log(count), rel=1e-12)
    m = count - 1  # every row has the probability 1/N, the noise m/N
    assert nce.loss.item() == pytest.approx(-math.log(1 / (1 + m)) - m * math.log(m / (1 + m)), rel=1e-12)


def test_images_not_seen_yet_are_no_negatives_and_stand_for_themselves() -> None:
    objective = make(temperature=0.4)
    view = draw(3, 3, seed=1).requires_grad_()
    result = loss_of(objective, view, torch.tensor([5, 0, 2]))
    assert result.loss == 0
    assert torch.equal(torch.autograd.grad(result.loss, view)[0], torch.zeros_like(view))
    objective.after_step(result.carry, STILL)
    assert objective.bank.known.tolist() == [True, False, True, False, False, True, False]
    first, second = nn.functional.normalize(view.detach()), unit(1, 3, seed=2)
    scores = [math.exp(1 / 0.4), *(math.exp(row @ second[0] / 0.4) for row in first)]
    found = loss_of(objective, second, torch.tensor([4])).loss.item()
    assert found == pytest.approx(-math.log(scores[0] / sum(scores)), rel=1e-12)


def test_an_image_not_seen_yet_is_moved_by_its_negatives_alone() -> None:
    """Its similarity with itself is the constant 1: the gradient is the negatives' mean, weighted by the softmax."""
    e = torch.eye(3, dtype=torch.float64)
    objective = make(3, temperature=0.5)
    objective.remember(features(e[1:]), BatchInfo(torch.tensor([0, 1])))
    vector = torch.tensor([[0.6, 0.8, 0.0]], dtype=torch.float64, requires_grad=True)
    loss_of(objective, vector, torch.tensor([2])).loss.backward()
    positive, first, second = math.exp(2.0), math.exp(1.6), math.exp(0.0)
    own = vector.detach()[0]
    pull = 2 * (own * positive + e[1] * first + e[2] * second) / (positive + first + second) - 2 * own
    along = pull - (pull @ own) * own  # the length does not count
    assert vector.grad is not None
    assert torch.allclose(vector.grad[0], along, atol=1e-12)
    assert along.norm() > 0.1


def test_all_images_pass_before_the_first_epoch_only() -> None:
    known = draw(COUNT, 3)
    objective = make(known=known)
    assert [objective.wants_all(epoch) for epoch in range(3)] == ["online", None, None]
    assert torch.allclose(objective.bank.embeddings, nn.functional.normalize(known))


def test_a_replay_is_sent_to_its_streaming_form() -> None:
    replay = ObjectiveUser("agent.objective", "a replay", frozenset({"actions"}))
    message = "^agent.objective instdisc needs indices, which a replay does not have: take moco$"
    with pytest.raises(ValueError, match=message):
        build_objective("instdisc", SPEC, None, DataSpec(), replay)


def test_a_custom_loop_passes_the_indices_and_the_bank_fills_as_it_runs() -> None:
    encoder = PixelEncoder((3, 10, 10), EncoderConfig(filters=2, strides=(2,), latent=4))
    aux = AuxiliaryLoss(encoder, "instdisc", data=DataSpec(count=9))
    pictures = torch.randint(256, (4, 3, 12, 12), dtype=torch.uint8)
    seen = torch.tensor([8, 0, 3, 5])
    assert aux(pictures, batch=BatchInfo(seen)) == 0
    assert aux(pictures, batch=BatchInfo(seen)) > 0
    assert aux.objective.bank.known.nonzero()[:, 0].tolist() == [0, 3, 5, 8]  # type: ignore[union-attr, operator]


def test_the_published_settings_are_the_defaults() -> None:
    """The released code, main.py."""
    objective = InstDisc(FeatureSpec(2048, (1, 1, 1)), count=2)
    assert objective.bank.embeddings.shape == (2, 128)
    assert [tuple(w.shape) for w in objective.head.parameters()] == [(128, 2048), (128,)]
    assert (objective.config.temperature, objective.config.bank_momentum) == (0.07, 0.5)
