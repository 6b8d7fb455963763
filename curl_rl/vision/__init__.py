"""Self-supervised learning on images, with the agent's losses, augmentations, encoders and objectives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curl_rl.vision.config import VisionConfig
    from curl_rl.vision.pretraining import pretrain

__all__ = ["VisionConfig", "pretrain"]


def __getattr__(name: str) -> Any:
    """Imports the public names on first access, so that importing one submodule stays fast."""
    if name == "pretrain":
        from curl_rl.vision.pretraining import pretrain

        return pretrain
    if name == "VisionConfig":
        from curl_rl.vision.config import VisionConfig

        return VisionConfig
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
