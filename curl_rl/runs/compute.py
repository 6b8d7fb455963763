"""What a run computes on and in: the device and the precision."""

from __future__ import annotations

import platform
import re
from typing import Literal

import torch

from curl_rl.encoders import Precision
from curl_rl.encoders.conv_relu import FUSES_BFLOAT16
from curl_rl.ranges import Range
from curl_rl.runs.allocator import keep_freed_memory
from curl_rl.runs.errors import UserError

DEVICE = Range("be auto, cpu, cuda or cuda:<n>", lambda name: bool(re.fullmatch(r"auto|cpu|cuda(:\d+)?", str(name))))

_IS_X86 = platform.machine().lower() in ("x86_64", "amd64")


def resolve_device(name: str) -> torch.device:
    """The device called ``name``; ``auto`` is the GPU where there is one.

    Raises:
        UserError: the name is none, or of a GPU that is not there.
    """
    if not DEVICE.holds(name):
        raise UserError(f"device must {DEVICE.words}, got {name!r}")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cpu":
        return device
    index = device.index or 0
    if index >= torch.cuda.device_count():
        raise UserError(f"device {name} is not there: PyTorch sees {torch.cuda.device_count()} GPUs; use --device cpu")
    return torch.device("cuda", index)  # without an index torch.cuda.set_device refuses it


def resolve_precision(precision: Precision | Literal["auto"], device: torch.device) -> Precision:
    """What ``auto`` means on this device: bfloat16 where the hardware multiplies in it, else float32.

    Raises:
        UserError: bfloat16 was asked for of hardware that would only emulate it.
    """
    if device.type == "cuda" and precision != "float32":
        with torch.cuda.device(device):  # it asks the current one
            supported = torch.cuda.is_bf16_supported(including_emulation=False)
        if supported:
            return "bfloat16"
        if precision == "bfloat16":
            name = torch.cuda.get_device_name(device)
            raise UserError(f"precision bfloat16 is not for {name}, which has no units for it: use float32 or auto")
        return "float32"
    if device.type != "cpu" or precision == "float32":
        return "float32" if precision == "auto" else precision
    if FUSES_BFLOAT16 and (not _IS_X86 or torch.cpu._is_avx512_bf16_supported()):
        return "bfloat16"
    if precision == "bfloat16":
        raise UserError("precision bfloat16 is not for this CPU, which has no units for it: use float32 or auto")
    return "float32"


def prepared_device(name: str) -> torch.device:
    """What :func:`resolve_device` gives, made ready for heavy work: to be asked before anything is allocated.

    Raises:
        UserError: as there.
    """
    device = resolve_device(name)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # streams and graphs belong to the current one
        torch.backends.cudnn.benchmark = True  # shapes stay the same: the first of each tries which kernel is fastest
        # Otherwise a long sum, such as a projection's over a whole map, may be split and put together in bfloat16.
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    else:
        keep_freed_memory()
    return device


def precision_in_words(precision: Precision, device: torch.device) -> str:
    """What convolutions of this precision really compute in there."""
    if precision != "float32" or device.type != "cuda" or not torch.backends.cudnn.allow_tf32:
        return precision
    if torch.cuda.get_device_capability(device) < (8, 0):
        return precision
    return "float32 (TensorFloat-32 in convolutions, as PyTorch has it on this GPU)"
