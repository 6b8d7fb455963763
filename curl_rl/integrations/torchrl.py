"""TorchRL: an encoder as a TensorDictModule, for its actors, critics and losses."""

from __future__ import annotations

from torch import Tensor, nn

from curl_rl.artifacts.pretrained import PretrainedEncoder

try:
    # TorchRL's modules are tensordict's; nothing else of it is needed.
    from tensordict.nn import TensorDictModule
except ModuleNotFoundError as error:
    if error.name != "tensordict":
        raise
    raise ImportError(
        "curl_rl.integrations.torchrl needs TorchRL: pip install -e '.[torchrl]' in curl_rl's clone"
    ) from None


def encoder_module(
    encoder: nn.Module, *, in_key: str | tuple[str, ...] = "pixels", out_key: str | tuple[str, ...] = "features"
) -> TensorDictModule:
    """A TensorDictModule that reads images under ``in_key`` and writes their features under ``out_key``.

    Args:
        encoder: takes ``(B, C, H, W)`` and returns ``(B, D)``: a :class:`~curl_rl.PixelEncoder`, what
            :func:`~curl_rl.load_encoder` gives, a ResNet. It stays the module that it is, so its gradients and its
            freezing are kept.
        in_key: images ``(..., C, H, W)`` of any batch size, also none: uint8, or floating point in [0, 1] as
            TorchRL's ``ToTensorImage`` makes them.
        out_key: where ``(..., D)`` goes.

    TorchRL's environments hand out pixels as ``(..., H, W, C)``. What :func:`~curl_rl.load_encoder` gives takes them as
    they are; in front of any other encoder ``ToTensorImage`` is needed.
    """
    module = encoder if isinstance(encoder, PretrainedEncoder) else _AnyBatch(encoder)
    return TensorDictModule(module, in_keys=[in_key], out_keys=[out_key])


class _AnyBatch(nn.Module):
    """``(..., C, H, W)`` through an encoder of ``(B, C, H, W)``, to ``(..., D)``."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        if images.ndim < 3:
            raise ValueError(f"expected images (..., C, H, W), got {tuple(images.shape)}")
        features: Tensor = self.encoder(images.reshape(-1, *images.shape[-3:]))
        return features.reshape(*images.shape[:-3], features.shape[-1])
