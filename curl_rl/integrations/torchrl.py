"""TorchRL: an encoder as a TensorDictModule, for TorchRL's actors, critics and losses."""

from __future__ import annotations

from torch import Tensor, nn

from curl_rl.artifacts.pretrained import PretrainedEncoder
from curl_rl.installation import installation_of

try:
    # TorchRL's modules come from tensordict; nothing else of TorchRL is needed.
    from tensordict.nn import TensorDictModule
except ModuleNotFoundError as error:
    if error.name != "tensordict":
        raise
    raise ImportError(f"curl_rl.integrations.torchrl needs TorchRL: {installation_of('torchrl')}") from None


def encoder_module(
    encoder: nn.Module, *, in_key: str | tuple[str, ...] = "pixels", out_key: str | tuple[str, ...] = "features"
) -> TensorDictModule:
    """A TensorDictModule that reads images under ``in_key`` and writes their features under ``out_key``.

    Args:
        encoder: takes ``(B, C, H, W)`` and returns ``(B, D)``: a :class:`~curl_rl.PixelEncoder`, a ResNet, or an
            encoder from :func:`~curl_rl.load_encoder`. It is not copied, so it keeps its gradients or stays frozen.
        in_key: key of images ``(..., C, H, W)`` with any batch shape, including none: uint8, or floating point in
            [0, 1] as produced by TorchRL's ``ToTensorImage``.
        out_key: key of the features ``(..., D)``.

    TorchRL's environments return pixels as ``(..., H, W, C)``. An encoder from :func:`~curl_rl.load_encoder` takes them
    directly; any other encoder needs ``ToTensorImage`` in front of it.
    """
    module = encoder if isinstance(encoder, PretrainedEncoder) else _AnyBatch(encoder)
    return TensorDictModule(module, in_keys=[in_key], out_keys=[out_key])


class _AnyBatch(nn.Module):
    """Applies an encoder of ``(B, C, H, W)`` to ``(..., C, H, W)``, giving ``(..., D)``."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        if images.ndim < 3:
            raise ValueError(f"expected images (..., C, H, W), got {tuple(images.shape)}")
        features: Tensor = self.encoder(images.reshape(-1, *images.shape[-3:]))
        return features.reshape(*images.shape[:-3], features.shape[-1])
