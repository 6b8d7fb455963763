"""Contrastive representations for reinforcement learning from pixels, and the encoders they train."""

from importlib import import_module
from typing import TYPE_CHECKING

from curl_rl import moved
from curl_rl.artifacts.encoder_file import load_encoder
from curl_rl.artifacts.pretrained import PretrainedEncoder
from curl_rl.auxiliary import AuxiliaryLoss
from curl_rl.encoders import EncoderConfig, ModuleEncoder, PixelEncoder, ResNet, ResNetConfig

if TYPE_CHECKING:
    from curl_rl.rl.loading import load_agent
    from curl_rl.rl.policy_file import load_policy
    from curl_rl.rl.pretrained_policy import PretrainedPolicy
    from curl_rl.rl.training import train
    from curl_rl.vision.pretraining import pretrain

__version__ = "0.1.0"

__all__ = [
    "AuxiliaryLoss",
    "EncoderConfig",
    "ModuleEncoder",
    "PixelEncoder",
    "PretrainedEncoder",
    "PretrainedPolicy",
    "ResNet",
    "ResNetConfig",
    "load_agent",
    "load_encoder",
    "load_policy",
    "pretrain",
    "train",
]

# Imported on first use: they pull in gymnasium, TensorBoard and the command-line libraries.
_LATER = {
    "PretrainedPolicy": "curl_rl.rl.pretrained_policy",
    "load_agent": "curl_rl.rl.loading",
    "load_policy": "curl_rl.rl.policy_file",
    "pretrain": "curl_rl.vision.pretraining",
    "train": "curl_rl.rl.training",
}

if not TYPE_CHECKING:  # otherwise type checkers would accept any attribute name

    def __getattr__(name: str) -> object:
        """Imports a name of :data:`_LATER` on first use (PEP 562)."""
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return globals().setdefault(name, getattr(import_module(_LATER[name]), name))

    def __dir__() -> list[str]:
        """The public names, whether imported yet or not."""
        return sorted({*globals(), *__all__})


moved.install()
