"""Contrastive representations for reinforcement learning from pixels, and the encoders they train."""

from curl_rl.artifacts.encoder_file import load_encoder
from curl_rl.artifacts.pretrained import PretrainedEncoder
from curl_rl.auxiliary import AuxiliaryLoss
from curl_rl.encoders import EncoderConfig, ModuleEncoder, PixelEncoder

__version__ = "0.1.0"

__all__ = ["AuxiliaryLoss", "EncoderConfig", "ModuleEncoder", "PixelEncoder", "PretrainedEncoder", "load_encoder"]
