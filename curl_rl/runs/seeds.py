"""Random numbers of a run: seeds, one to each purpose, and the states of the global generators."""

from __future__ import annotations

import random
from typing import Any, Literal, get_args

import numpy as np
import torch

from curl_rl.ranges import within

# 32 bits are what every generator of random numbers takes.
SEED = within(f"[0, {2**32})", "be 0 or more and below 2**32")

# A purpose's place in the list is part of its seeds: new ones go to the end.
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
]


def check_seed(seed: int) -> None:
    """Refuses what is no seed of a run.

    Raises:
        ValueError: it is negative, or 2³² and more.
    """
    SEED.check("seed", seed)


def derived_seed(run_seed: int, purpose: Purpose, index: int = 0) -> int:
    """A seed below 2³²: independent between runs, purposes and indices.

    Episodes are seeded each by its number: with its actions that is all that an episode depends on, so nothing of an
    environment needs to be saved.
    """
    sequence = np.random.SeedSequence([run_seed, get_args(Purpose).index(purpose), index])
    return int(sequence.generate_state(1)[0])


def random_state() -> dict[str, Any]:
    """States of the global random generators of Python, NumPy, torch and, where CUDA is in use, each of its devices.

    Returns:
        A dict that `checkpoint.save` accepts: NumPy's and Python's own tuples are not allowed in a file that may run no
        code.
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
        # Asking a CUDA that nobody uses would build a context, some hundred MB, on each device.
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Put back what `random_state` returned.

    CUDA states are put back on the devices that are here: a run may be resumed on another machine.
    """
    python, numpy_state = state["python"], state["numpy"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    words, position = numpy_state["words"].numpy().astype(np.uint32), numpy_state["position"]
    np.random.set_state(("MT19937", words, position, numpy_state["has_gauss"], numpy_state["gauss"]))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    for device, cuda_state in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(cuda_state, device)
