"""Encoders: networks from pixels to features. They know nothing of environments, losses or training."""

from curl_rl.encoders.base import (
    Features,
    FeatureSpec,
    Precision,
    cat_features,
    chunk_features,
    map_features,
    take_features,
)
from curl_rl.encoders.pixel import Convolutions, EncoderConfig, PixelEncoder, Projection, orthogonal_init

__all__ = [
    "Convolutions",
    "EncoderConfig",
    "FeatureSpec",
    "Features",
    "PixelEncoder",
    "Precision",
    "Projection",
    "cat_features",
    "chunk_features",
    "map_features",
    "orthogonal_init",
    "take_features",
]
