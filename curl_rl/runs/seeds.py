"""Random numbers of a run: one seed per purpose, and the states of the global generators."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any, Literal, get_args

import numpy as np
import torch

from curl_rl.ranges import within

# Every random number generator accepts a seed of 32 bits.
SEED = within(f"[0, {2**32})", "be 0 or more and below 2**32")

# A purpose's position in the list determines its seeds: add new ones at the end.
Purpose = Literal[
    "training episode",
    "evaluation episode",
    "networks",
    "exploration and crops",
    "replay",
    "augmentation",
    "shuffled batch norm",
    "recorded episode",
    "recorded actions",
    "held-out views",
    "clusters",
    "explored policies",
    "search for policies",
    "training scenes",
    "validation scenes",
    "test scenes",
    "learned regions",
    "replayed scenes",
    "noise of the network",
    "hidden tokens",
]


def check_seed(seed: int) -> None:
    """Refuses a number that is not a valid seed of a run.

    Raises:
        ValueError: it is negative, or 2³² or more.
    """
    SEED.check("seed", seed)


def derived_seed(run_seed: int, purpose: Purpose, index: int = 0) -> int:
    """A seed below 2³²: independent between runs, purposes and indices.

    Each episode is seeded by its number. An episode depends only on that seed and its actions, so no environment state
    needs to be saved.
    """
    sequence = np.random.SeedSequence([run_seed, get_args(Purpose).index(purpose), index])
    return int(sequence.generate_state(1)[0])


@contextlib.contextmanager
def global_generator(seed: int, device: torch.device) -> Iterator[None]:
    """Seeds torch's global generator of the device in the block, and restores it: for layers that draw from it."""
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        if on_gpu:
            index = torch.cuda.current_device() if device.index is None else device.index
            torch.cuda.default_generators[index].manual_seed(seed)
        else:
            torch.default_generator.manual_seed(seed)
        yield


def random_state() -> dict[str, Any]:
    """States of the global random generators of Python, NumPy, torch and, if CUDA is in use, each CUDA device.

    Returns:
        A dict that `checkpoint.save` accepts; Python's and NumPy's own states hold types that a file loaded without
        running code must not hold.
    """
    version, words, gauss = random.getstate()
    numpy_state: Any = np.random.get_state(legacy=False)  # noqa: NPY002  # other libraries draw from this one
    return {
        "python": {"version": version, "words": torch.tensor(words, dtype=torch.int64), "gauss": gauss},
        "numpy": {
            "words": torch.from_numpy(numpy_state["state"]["key"].astype(np.int64)),
            "position": int(numpy_state["state"]["pos"]),
            "has_gauss": int(numpy_state["has_gauss"]),
            "gauss": float(numpy_state["gauss"]),
        },
        "torch": torch.get_rng_state(),
        # Querying an unused CUDA would create a context of some hundred MB on each device.
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


@contextlib.contextmanager
def unchanged_random_state() -> Iterator[None]:
    """Restores the global random generators after the block, which may draw from them as other code does.

    Environments may use these generators: an evaluation must not change the numbers that training draws.
    """
    before = random_state()
    try:
        yield
    finally:
        restore_random_state(before)


def restore_random_state(state: dict[str, Any]) -> None:
    """Restores a state returned by `random_state`.

    CUDA states are restored on the devices of this machine, which may have fewer: a run may be resumed elsewhere.
    """
    python, numpy_state = state["python"], state["numpy"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    words, position = numpy_state["words"].numpy().astype(np.uint32), numpy_state["position"]
    np.random.set_state(("MT19937", words, position, numpy_state["has_gauss"], numpy_state["gauss"]))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    for device, cuda_state in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(cuda_state, device)
