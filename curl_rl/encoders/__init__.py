"""Encoders: networks from pixels to features. They know nothing of environments, losses or training."""

from curl_rl.encoders.pixel import (
    Convolutions,
    EncoderConfig,
    Features,
    FeatureSpec,
    PixelEncoder,
    Precision,
    Projection,
    orthogonal_init,
)

__all__ = [
    "Convolutions",
    "EncoderConfig",
    "FeatureSpec",
    "Features",
    "PixelEncoder",
    "Precision",
    "Projection",
    "orthogonal_init",
]
