"""A ResNet of a sixteenth of the usual width, which encodes a picture almost instantly."""

from __future__ import annotations

import torch

from curl_rl.encoders.resnet import ResNet, ResNetConfig

SMALL = ResNetConfig(width=1 / 16, stem="small")


def resnet(seed: int = 0, side: int = 8) -> ResNet:
    torch.manual_seed(seed)
    return ResNet((3, side, side), SMALL).eval()
