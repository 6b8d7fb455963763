"""Seeds of a run: one goes in, and for each purpose an independent one comes out."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

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
