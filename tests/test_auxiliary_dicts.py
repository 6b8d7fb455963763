"""AuxiliaryLoss on observations that are dicts: the images alone count."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from curl_rl import AuxiliaryLoss, EncoderConfig, PixelEncoder
from curl_rl.objectives import BatchInfo
from helpers.dummy_objectives import Dynamics


def encoder_of() -> PixelEncoder:
    torch.manual_seed(0)
    return PixelEncoder((2, 10, 10), EncoderConfig(filters=3, strides=(2, 1), latent=5)).double()


def images_of() -> Tensor:
    return torch.randint(256, (4, 2, 13, 13), generator=generator_of(), dtype=torch.uint8)


def generator_of() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def test_of_a_dict_only_the_images_count() -> None:
    images = images_of()
    alone, beside = (AuxiliaryLoss(encoder_of(), "curl", generator=generator_of()) for _ in range(2))
    beside.objective.load_state_dict(alone.objective.state_dict())
    observations = {"joints": torch.full((4, 3), torch.nan), "camera": images, "choice": torch.arange(4)}
    assert torch.equal(beside(observations), alone(images))


def test_later_observations_may_be_dicts_too() -> None:
    encoder, images, actions = encoder_of(), images_of(), torch.rand(4, 3, 2)
    objective, joints = Dynamics(encoder.feature_spec, action_dim=2).double(), torch.zeros(4, 2)
    moments, batch = [images, 255 - images, images // 2], BatchInfo(actions=actions)
    losses = []
    for now, *later in (moments, [{"camera": moment, "joints": joints} for moment in moments]):
        losses.append(AuxiliaryLoss(encoder, objective, generator=generator_of())(now, later=later, batch=batch))
    assert torch.equal(*losses)


def test_a_dict_without_images_or_with_several_is_refused() -> None:
    aux, vectors = AuxiliaryLoss(encoder_of(), "curl"), torch.zeros(4, 3)
    for observations in ({"joints": vectors}, {"left": images_of(), "right": images_of(), "joints": vectors}):
        with pytest.raises(ValueError, match=r"^observations must hold one entry of images \(B, C, H, W\), got \{"):
            aux(observations)
