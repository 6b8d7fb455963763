"""Seeds differ between runs, purposes and episodes; random numbers resume where they stopped."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from curl_rl.runs import checkpoint
from curl_rl.runs.seeds import Purpose, derived_seed, global_generator, random_state, restore_random_state
from helpers.checkpoints import assert_same


def test_runs_purposes_and_indices_have_different_seeds() -> None:
    purposes = get_args(Purpose)
    seeds = [derived_seed(run, purpose, index) for run in range(5) for purpose in purposes for index in range(50)]
    assert len(set(seeds)) == len(seeds) == 5 * len(purposes) * 50
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_a_seed_is_the_same_every_time_and_in_every_version() -> None:
    # A resumed run replays its unfinished episode from its seed, so these must never change.
    assert derived_seed(1, "training episode", 0) == derived_seed(1, "training episode")
    assert [derived_seed(1, "training episode", 7), derived_seed(1, "evaluation episode", 0)] == [
        1468060454,
        1189033389,
    ]


# ---- states of the global generators


def draw() -> list[Any]:
    # An odd number of Gaussians leaves half a pair in generators that produce pairs.
    return [
        random.random(),
        random.gauss(0, 1),
        float(np.random.normal()),
        int(np.random.randint(2**31)),
        torch.randn(3).tolist(),
        torch.randperm(10).tolist(),
    ]


def test_random_numbers_resume_where_they_stopped(tmp_path: Path) -> None:
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    draw()
    checkpoint.save(tmp_path, 1, {"random": random_state()})
    expected = [draw() for _ in range(3)]
    random.seed(4)
    np.random.seed(5)
    torch.manual_seed(6)
    loaded = checkpoint.load_newest(tmp_path)
    assert loaded is not None
    restore_random_state(loaded[1]["random"])
    assert [draw() for _ in range(3)] == expected


def test_states_of_absent_devices_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    restored = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: restored.append((state, device)))
    restore_random_state({**random_state(), "cuda": ["first", "second", "third"]})
    assert restored == [("first", 0), ("second", 1)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_random_numbers_and_tensors_of_a_gpu(tmp_path: Path) -> None:
    torch.cuda.manual_seed(1)
    tensor = torch.randn(3, device="cuda")
    checkpoint.save(tmp_path, 1, {"random": random_state(), "tensor": tensor})
    expected = torch.randn(3, device="cuda")
    torch.cuda.manual_seed(2)
    loaded = checkpoint.load_newest(tmp_path)
    assert loaded is not None
    assert_same(loaded[1]["tensor"], tensor.cpu())
    restore_random_state(loaded[1]["random"])
    assert torch.equal(torch.randn(3, device="cuda"), expected)


def test_the_global_generator_is_seeded_in_a_block_and_restored() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(4)
    before = torch.get_rng_state()
    with global_generator(5, torch.device("cpu")):
        assert torch.equal(torch.rand(3), expected)
    assert torch.equal(torch.get_rng_state(), before)
