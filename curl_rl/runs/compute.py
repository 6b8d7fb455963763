"""The device and precision of a run."""

from __future__ import annotations

import platform
import re
from pathlib import Path
from typing import Literal

import torch

from curl_rl.encoders import Precision
from curl_rl.encoders.conv_relu import FUSES_BFLOAT16
from curl_rl.ranges import Range
from curl_rl.runs.allocator import keep_freed_memory
from curl_rl.runs.errors import UserError

DEVICE = Range("be auto, cpu, cuda or cuda:<n>", lambda name: bool(re.fullmatch(r"auto|cpu|cuda(:\d+)?", str(name))))

_CPUINFO = Path("/proc/cpuinfo")
_IS_X86 = platform.machine().lower() in ("x86_64", "amd64")


def resolve_device(name: str) -> torch.device:
    """The device called ``name``; ``auto`` is the GPU if the machine has one.

    Raises:
        UserError: ``name`` is not a device name, or the GPU does not exist.
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
        raise UserError(f"device {name} not found: PyTorch sees {torch.cuda.device_count()} GPUs; use --device cpu")
    return torch.device("cuda", index)  # torch.cuda.set_device refuses a device without an index


def resolve_precision(precision: Precision | Literal["auto"], device: torch.device) -> Precision:
    """Resolves ``auto`` on this device: bfloat16 where it is faster than float32, else float32.

    Raises:
        UserError: bfloat16 was requested, but the hardware would only emulate it.
    """
    if device.type == "cuda" and precision != "float32":
        with torch.cuda.device(device):  # is_bf16_supported checks the current device
            supported = torch.cuda.is_bf16_supported(including_emulation=False)
        if supported:
            return "bfloat16"
        if precision == "bfloat16":
            name = torch.cuda.get_device_name(device)
            raise UserError(f"{name} does not support precision bfloat16 in hardware: use float32 or auto")
        return "float32"
    if device.type != "cpu" or precision == "float32":
        return "float32" if precision == "auto" else precision
    has_instructions = FUSES_BFLOAT16 and (not _IS_X86 or torch.cpu._is_avx512_bf16_supported())
    if precision == "bfloat16":
        if has_instructions:
            return "bfloat16"
        raise UserError("this CPU does not support precision bfloat16 in hardware: use float32 or auto")
    return "bfloat16" if has_instructions and bfloat16_is_faster() else "float32"


def bfloat16_is_faster() -> bool:
    """Whether a CPU that has bfloat16 instructions also gains by them.

    Of Intel's processors only those with matrix units (AMX) do. A 3×3 convolution of 32 channels, forward and backward
    on one core of an Emerald Rapids whose AMX a hypervisor hides, makes about 130 GFLOP/s in float32 and 80 in
    bfloat16; updates of CURL with AMX, or on AMD's processors, are twice as fast in bfloat16 (results/README.md).
    """
    if not _IS_X86 or torch.cpu._is_amx_tile_supported():
        return True
    try:
        return "AuthenticAMD" in _CPUINFO.read_text()
    except OSError:  # not Linux
        return False


def prepared_device(name: str) -> torch.device:
    """Resolves the device as :func:`resolve_device` does and configures PyTorch for it; call it before any allocation.

    Raises:
        UserError: as :func:`resolve_device`.
    """
    device = resolve_device(name)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # streams and graphs belong to the current device
        torch.backends.cudnn.benchmark = True  # shapes are fixed: the first call of each picks the fastest kernel
        # Otherwise a long sum, such as a projection over a whole map, may be split and its parts added in bfloat16.
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    else:
        keep_freed_memory()
    return device


def precision_in_words(precision: Precision, device: torch.device) -> str:
    """The precision that convolutions actually use on this device, for messages."""
    if precision != "float32" or device.type != "cuda" or not torch.backends.cudnn.allow_tf32:
        return precision
    if torch.cuda.get_device_capability(device) < (8, 0):
        return precision
    return "float32 (TensorFloat-32 in convolutions, PyTorch's default on this GPU)"
