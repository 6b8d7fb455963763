"""What a run computes on and in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import torch

from curl_rl import compute
from curl_rl.compute import is_out_of_memory, keep_freed_memory, resolve_device, resolve_precision
from curl_rl.errors import UserError


def test_precision_auto_is_what_the_hardware_is_fast_in() -> None:
    assert resolve_precision("float32", torch.device("cpu")) == "float32"
    assert resolve_precision("bfloat16", torch.device("cpu")) == "bfloat16"
    with open("/proc/cpuinfo") as file:
        fast = "avx512_bf16" in file.read()
    assert resolve_precision("auto", torch.device("cpu")) == ("bfloat16" if fast else "float32")


def test_devices_by_name() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_a_gpu_always_has_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one ``torch.cuda.set_device`` refuses it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name, number in (("auto", 0), ("cuda", 0), ("cuda:1", 1)):
        assert resolve_device(name) == torch.device("cuda", number)
        assert resolve_device(name).index == number


def test_a_full_memory_is_told_from_other_errors() -> None:
    with pytest.raises(RuntimeError) as full:
        torch.empty(2**55, dtype=torch.uint8)
    with pytest.raises(RuntimeError) as other:
        torch.zeros(2) @ torch.zeros(3)
    assert is_out_of_memory(full.value)
    assert not is_out_of_memory(other.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))


@pytest.mark.parametrize("name", ["tpu", "cuda:x", "cuda:99"])
def test_a_device_that_is_none_or_not_there_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=name):
        resolve_device(name)


def test_keeping_freed_memory_leaves_results_alone() -> None:
    before = torch.arange(10**6).sum()
    keep_freed_memory()
    assert torch.arange(10**6).sum() == before


@pytest.mark.parametrize("supported", [False, True])
def test_a_gpu_without_bfloat16_gets_float32_unless_it_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, supported: bool
) -> None:
    current = [0]

    @contextlib.contextmanager
    def made_current(device: torch.device) -> Iterator[None]:
        current.append(device.index)
        yield
        current.pop()

    def is_supported(including_emulation: bool) -> bool:
        return including_emulation or supported == (current[-1] == 1)  # the current one is of the other kind

    monkeypatch.setattr(torch.cuda, "device", made_current)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "an old GPU")
    gpu = torch.device("cuda", 1)
    assert resolve_precision("auto", gpu) == ("bfloat16" if supported else "float32")
    assert resolve_precision("float32", gpu) == "float32"
    if supported:
        assert resolve_precision("bfloat16", gpu) == "bfloat16"
    else:
        with pytest.raises(UserError, match="precision bfloat16 is not for an old GPU"):
            resolve_precision("bfloat16", gpu)


def test_a_device_is_made_ready_for_heavy_work(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[object] = []
    monkeypatch.setattr(compute, "keep_freed_memory", lambda: done.append("memory"))
    monkeypatch.setattr(torch.cuda, "set_device", done.append)
    assert compute.prepared_device("cpu") == torch.device("cpu")
    assert done == ["memory"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert compute.prepared_device("cuda:1") == torch.device("cuda", 1)
    assert done == ["memory", torch.device("cuda", 1)]
