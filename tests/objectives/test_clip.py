"""CLIP against InfoNCE both ways, closed forms, and two pairs by hand; duplicates and the bound of the scale."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from curl_rl import AuxiliaryLoss, PixelEncoder
from curl_rl.encoders import EncoderConfig, Features, FeatureSpec
from curl_rl.losses import info_nce
from curl_rl.objectives import CLIP, BatchInfo, CLIPConfig, DataSpec, ObjectiveUser, build_objective
from helpers.random_tensors import draw, unit

IMAGE, TEXT = FeatureSpec(5, (2, 2, 2)), FeatureSpec(3, (3, 1, 4))


def features(vector: torch.Tensor) -> Features:
    return Features(vector, vector.new_empty(len(vector), 0))


def clip(image_dim: int = 5, text_dim: int = 3, **settings: object) -> CLIP:
    torch.manual_seed(0)
    spec = FeatureSpec(image_dim, (1, 1, 1)), FeatureSpec(text_dim, (1, 1, 1))
    return CLIP(*spec, CLIPConfig(**settings)).double()  # type: ignore[arg-type]


def identity(objective: CLIP) -> CLIP:
    with torch.no_grad():
        for head in (objective.image_head, objective.text_head):
            (weight,) = head.parameters()
            torch.nn.init.eye_(weight)
    return objective


def test_it_is_info_nce_of_the_scaled_cosines_in_both_directions() -> None:
    objective = clip(dim=4)
    image, text = draw(6, 5), draw(6, 3, seed=1)
    embedded = F.normalize(objective.image_head(image)), F.normalize(objective.text_head(text))
    logits = embedded[0] @ embedded[1].T / 0.07
    loss = objective([features(image), features(text)], [], BatchInfo()).loss
    assert torch.allclose(loss, (info_nce(logits) + info_nce(logits.T)) / 2, rtol=1e-6)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_orthonormal_pairs_have_the_loss_of_the_closed_form(temperature: float) -> None:
    objective = identity(clip(7, 7, dim=7, temperature=temperature))
    pairs = torch.eye(7, dtype=torch.float64)
    loss = objective([features(pairs), features(pairs)], [], BatchInfo()).loss
    assert loss.item() == pytest.approx(math.log(1 + 6 * math.exp(-1 / temperature)), rel=1e-5)


def test_two_pairs_by_hand() -> None:
    objective = identity(clip(2, 2, dim=2, temperature=0.5))
    image = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    text = torch.tensor([[3.0, 4.0], [0.0, 1.0]], dtype=torch.float64)
    # Cosines: image 0 with the texts 0.6, 0; image 1 with them 0.8, 1. The scale is 2.
    a, b, c, d = 1.2, 0.0, 1.6, 2.0
    rows = math.log(1 + math.exp(b - a)) + math.log(1 + math.exp(c - d))
    columns = math.log(1 + math.exp(c - a)) + math.log(1 + math.exp(b - d))
    result = objective([features(image), features(text)], [], BatchInfo())
    assert result.loss.item() == pytest.approx((rows + columns) / 4, rel=1e-6)
    assert result.metrics["accuracy"] == 1
    assert result.metrics["text_accuracy"] == 0.5
    assert result.metrics["logit_scale"].item() == pytest.approx(2)


def test_permuting_the_texts_alone_changes_which_one_is_right() -> None:
    objective = clip()
    image, text, order = draw(6, 5), draw(6, 3, seed=1), torch.tensor([1, 2, 3, 4, 5, 0])
    logits = (
        F.normalize(objective.image_head(image))
        @ F.normalize(objective.text_head(text)).T
        * objective.logit_scale.exp()
    )
    moved = objective([features(image), features(text[order])], [], BatchInfo()).loss
    by_hand = (F.cross_entropy(logits, order) + F.cross_entropy(logits.T, order.argsort())) / 2
    assert torch.allclose(moved, by_hand, rtol=1e-6)


def test_samples_with_a_part_in_common_share_the_target() -> None:
    objective = clip(temperature=1.0)
    inputs = [features(draw(4, 5)), features(draw(4, 3, seed=1))]
    # Samples 0 and 2 have the same caption, 1 and 2 the same picture, 3 nothing in common.
    contents = torch.tensor([[0, 5], [1, 6], [1, 5], [3, 8]])
    logits = objective.logit_scale.exp() * (
        F.normalize(objective.image_head(inputs[0].vector)) @ F.normalize(objective.text_head(inputs[1].vector)).T
    )
    targets = torch.tensor([[1, 0, 1, 0], [0, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 1]], dtype=torch.float64)
    targets /= targets.sum(1, keepdim=True)
    by_hand = (
        -(targets * logits.log_softmax(1)).sum(1).mean() / 2 - (targets * logits.T.log_softmax(1)).sum(1).mean() / 2
    )
    shared = objective(inputs, [], BatchInfo(contents=contents))
    assert torch.allclose(shared.loss, by_hand, rtol=1e-6)
    negative = clip(temperature=1.0, duplicates="negative")(inputs, [], BatchInfo(contents=contents))
    assert torch.allclose(negative.loss, objective(inputs, [], BatchInfo()).loss, rtol=1e-9)
    assert not torch.allclose(negative.loss, shared.loss, rtol=1e-3)


def test_a_number_of_one_column_says_nothing_about_another_column() -> None:
    objective = clip()
    inputs = [features(draw(3, 5)), features(draw(3, 3, seed=1))]
    different = torch.tensor([[0, 1], [1, 2], [2, 0]])
    loss = objective(inputs, [], BatchInfo(contents=different)).loss
    assert torch.allclose(loss, objective(inputs, [], BatchInfo()).loss, rtol=1e-6)


def test_the_scale_is_bounded_after_the_step_and_not_in_the_loss() -> None:
    objective = clip(largest_scale=20.0)
    with torch.no_grad():
        objective.logit_scale.fill_(math.log(500))
    result = objective([features(draw(4, 5)), features(draw(4, 3, seed=1))], [], BatchInfo())
    assert result.metrics["logit_scale"].item() == pytest.approx(500)
    objective.after_step(result.carry, torch.tensor(1.0))
    assert objective.logit_scale.exp().item() == pytest.approx(20)
    with torch.no_grad():
        objective.logit_scale.fill_(-1.0)
    objective.after_step(result.carry, torch.tensor(1.0))
    assert objective.logit_scale.item() == -1.0


def test_open_clips_loss_agrees() -> None:
    open_clip = pytest.importorskip("open_clip")
    image, text = unit(5, 4).float(), unit(5, 4, seed=1).float()
    objective = identity(clip(4, 4, dim=4)).float()
    loss = objective([features(image), features(text)], [], BatchInfo()).loss
    assert torch.allclose(loss, open_clip.ClipLoss()(image, text, 1 / 0.07), rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim": 0}, r"objectives\.clip\.dim must be at least 1, got 0"),
        (
            {"temperature": 0.001},
            r"objectives\.clip\.temperature must be at least 1 / largest_scale, 0\.01, got 0\.001",
        ),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CLIPConfig(**settings)  # type: ignore[arg-type]


def test_it_is_refused_where_there_are_no_texts() -> None:
    with pytest.raises(ValueError, match="needs an encoder of texts beside that of images, got none"):
        build_objective("clip", IMAGE, data=DataSpec())
    encoder = PixelEncoder((3, 16, 16), EncoderConfig(2, (2,), 4))
    with pytest.raises(ValueError, match="got one of both, which needs two encoders"):
        AuxiliaryLoss(encoder, "clip", data=DataSpec(text=TEXT))
    with pytest.raises(ValueError, match=r"method clip needs text, .*: take simclr \(scripts/pretrain_text\.py"):
        build_objective("clip", IMAGE, user=ObjectiveUser("method", "digits", frozenset({"indices"})))
