"""Contrastive representations for reinforcement learning from pixels, and the encoders they train."""

from importlib import import_module
from typing import TYPE_CHECKING

from curl_rl import installation, moved

if TYPE_CHECKING:
    from curl_rl.artifacts.encoder_file import load_encoder
    from curl_rl.artifacts.pretrained import PretrainedEncoder
    from curl_rl.auxiliary import AuxiliaryLoss
    from curl_rl.encoders import EncoderConfig, ModuleEncoder, PixelEncoder, ResNet, ResNetConfig
    from curl_rl.rl.loading import load_agent
    from curl_rl.rl.policy_file import load_policy
    from curl_rl.rl.pretrained_policy import PretrainedPolicy
    from curl_rl.rl.training import train
    from curl_rl.vision.pretraining import pretrain

__version__ = "0.2.0"

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

# Imported on first use: torch alone takes seconds, which `curl-rl --help` need not wait for, and the doctor runs where
# it is broken.
_PLACES = {
    "AuxiliaryLoss": "curl_rl.auxiliary",
    "EncoderConfig": "curl_rl.encoders",
    "ModuleEncoder": "curl_rl.encoders",
    "PixelEncoder": "curl_rl.encoders",
    "PretrainedEncoder": "curl_rl.artifacts.pretrained",
    "PretrainedPolicy": "curl_rl.rl.pretrained_policy",
    "ResNet": "curl_rl.encoders",
    "ResNetConfig": "curl_rl.encoders",
    "load_agent": "curl_rl.rl.loading",
    "load_encoder": "curl_rl.artifacts.encoder_file",
    "load_policy": "curl_rl.rl.policy_file",
    "pretrain": "curl_rl.vision.pretraining",
    "train": "curl_rl.rl.training",
}

if not TYPE_CHECKING:  # otherwise type checkers would accept any attribute name

    def __getattr__(name: str) -> object:
        """Imports a name of :data:`_PLACES` on first use (PEP 562)."""
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return globals().setdefault(name, getattr(import_module(_PLACES[name]), name))

    def __dir__() -> list[str]:
        """The public names, whether imported yet or not."""
        return sorted({*globals(), *__all__})


installation.expose_envs()
moved.install()
