"""Devices and precisions by name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from curl_rl.runs import compute
from curl_rl.runs.compute import resolve_device, resolve_precision
from curl_rl.runs.errors import UserError


def test_precision_auto_is_the_hardwares_fastest() -> None:
    assert resolve_precision("float32", torch.device("cpu")) == "float32"
    with open("/proc/cpuinfo") as file:
        words = set(file.read().split())
    has_instructions = "avx512_bf16" in words
    fast = has_instructions and bool({"amx_bf16", "AuthenticAMD"} & words)
    assert resolve_precision("auto", torch.device("cpu")) == ("bfloat16" if fast else "float32")
    if has_instructions:
        assert resolve_precision("bfloat16", torch.device("cpu")) == "bfloat16"


@pytest.mark.parametrize(
    ("vendor", "matrix_units", "precision"),
    [
        ("GenuineIntel", True, "bfloat16"),  # Sapphire Rapids
        ("GenuineIntel", False, "float32"),  # Cooper Lake, or AMX hidden by a hypervisor: half float32's speed
        ("AuthenticAMD", False, "bfloat16"),  # Zen 4 and 5
        (None, False, "float32"),
    ],
)
def test_auto_is_bfloat16_only_where_it_is_faster(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, vendor: str | None, matrix_units: bool, precision: str
) -> None:
    monkeypatch.setattr(compute, "_IS_X86", True)
    monkeypatch.setattr(compute, "FUSES_BFLOAT16", True)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: matrix_units)
    monkeypatch.setattr(compute, "_CPUINFO", tmp_path / "cpuinfo")
    if vendor:
        (tmp_path / "cpuinfo").write_text(f"vendor_id\t: {vendor}\nflags\t: fpu avx512_bf16\n")
    assert resolve_precision("auto", torch.device("cpu")) == precision
    assert resolve_precision("bfloat16", torch.device("cpu")) == "bfloat16"


@pytest.mark.parametrize(("fuses", "has_instructions"), [(False, True), (True, False)])
def test_bfloat16_is_refused_on_a_cpu_that_would_only_emulate_it(
    monkeypatch: pytest.MonkeyPatch, fuses: bool, has_instructions: bool
) -> None:
    monkeypatch.setattr(compute, "_IS_X86", True)
    monkeypatch.setattr(compute, "FUSES_BFLOAT16", fuses)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_instructions)
    assert resolve_precision("auto", torch.device("cpu")) == "float32"
    with pytest.raises(UserError, match="this CPU does not support precision bfloat16"):
        resolve_precision("bfloat16", torch.device("cpu"))


def test_devices_by_name() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_a_gpu_always_has_an_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """``torch.cuda.set_device`` refuses a device without an index."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name, number in (("auto", 0), ("cuda", 0), ("cuda:1", 1)):
        assert resolve_device(name) == torch.device("cuda", number)
        assert resolve_device(name).index == number


@pytest.mark.parametrize("name", ["tpu", "cuda:x", "cuda:99"])
def test_an_invalid_or_absent_device_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=name):
        resolve_device(name)


@pytest.mark.parametrize("supported", [False, True])
def test_bfloat16_on_a_gpu_without_it_becomes_float32_or_is_refused(
    monkeypatch: pytest.MonkeyPatch, supported: bool
) -> None:
    current = [0]

    @contextlib.contextmanager
    def made_current(device: torch.device) -> Iterator[None]:
        current.append(device.index)
        yield
        current.pop()

    def is_supported(including_emulation: bool) -> bool:
        return including_emulation or supported == (current[-1] == 1)  # the current device is of the other kind

    monkeypatch.setattr(torch.cuda, "device", made_current)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "an old GPU")
    gpu = torch.device("cuda", 1)
    assert resolve_precision("auto", gpu) == ("bfloat16" if supported else "float32")
    assert resolve_precision("float32", gpu) == "float32"
    if supported:
        assert resolve_precision("bfloat16", gpu) == "bfloat16"
    else:
        with pytest.raises(UserError, match="an old GPU does not support precision bfloat16"):
            resolve_precision("bfloat16", gpu)


def test_a_device_is_prepared_for_heavy_work(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[object] = []
    monkeypatch.setattr(compute, "keep_freed_memory", lambda: done.append("memory"))
    monkeypatch.setattr(torch.cuda, "set_device", done.append)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    matmul = SimpleNamespace(allow_bf16_reduced_precision_reduction=True)
    monkeypatch.setattr(torch.backends.cuda, "matmul", matmul)
    assert compute.prepared_device("cpu") == torch.device("cpu")
    assert done == ["memory"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert compute.prepared_device("cuda:1") == torch.device("cuda", 1)
    assert done == ["memory", torch.device("cuda", 1)]
    assert torch.backends.cudnn.benchmark
    assert not matmul.allow_bf16_reduced_precision_reduction


def test_tensor_float_32_is_called_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda", 0)
    capability = [(9, 0)]
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability[0])
    assert compute.precision_in_words("float32", cpu) == "float32"
    assert compute.precision_in_words("bfloat16", gpu) == "bfloat16"
    assert "TensorFloat-32" in compute.precision_in_words("float32", gpu)
    capability[0] = (7, 5)
    assert compute.precision_in_words("float32", gpu) == "float32"
    capability[0] = (9, 0)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    assert compute.precision_in_words("float32", gpu) == "float32"
