"""Encoders: networks from pixels or texts to features, independent of environments, losses and training."""

from curl_rl.encoders.base import (
    Encoder,
    Features,
    FeatureSpec,
    Precision,
    cat_features,
    chunk_features,
    map_features,
    take_features,
)
from curl_rl.encoders.heads import MLP
from curl_rl.encoders.kinds import build_encoder
from curl_rl.encoders.modes import evaluating
from curl_rl.encoders.module import ModuleEncoder
from curl_rl.encoders.patches import PatchEncoder
from curl_rl.encoders.pixel import Convolutions, EncoderConfig, PixelEncoder, Projection, orthogonal_init
from curl_rl.encoders.resnet import ResNet, ResNetConfig
from curl_rl.encoders.text import TextEncoder, TextEncoderConfig
from curl_rl.encoders.two_stream import TwoStreamEncoder
from curl_rl.encoders.two_tower_text import TwoTowerTextEncoder

__all__ = [
    "MLP",
    "Convolutions",
    "Encoder",
    "EncoderConfig",
    "FeatureSpec",
    "Features",
    "ModuleEncoder",
    "PatchEncoder",
    "PixelEncoder",
    "Precision",
    "Projection",
    "ResNet",
    "ResNetConfig",
    "TextEncoder",
    "TextEncoderConfig",
    "TwoStreamEncoder",
    "TwoTowerTextEncoder",
    "build_encoder",
    "cat_features",
    "chunk_features",
    "evaluating",
    "map_features",
    "orthogonal_init",
    "take_features",
]
