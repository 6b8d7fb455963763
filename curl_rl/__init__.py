"""Contrastive representations for reinforcement learning from pixels, and the encoders they train."""

from curl_rl.encoders import EncoderConfig, PixelEncoder
from curl_rl.export import PretrainedEncoder, load_encoder

__version__ = "0.1.0"

__all__ = ["EncoderConfig", "PixelEncoder", "PretrainedEncoder", "load_encoder"]
