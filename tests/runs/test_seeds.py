"""Seeds of runs, purposes and episodes never meet."""

from __future__ import annotations

from typing import get_args

from curl_rl.runs.seeds import Purpose, derived_seed


def test_runs_purposes_and_indices_have_seeds_of_their_own() -> None:
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
