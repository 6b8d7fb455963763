"""Content that no network file may hold is refused on writing, not on reading."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from torch import nn

from curl_rl.artifacts.network_file import as_safetensors, save_network


@pytest.mark.parametrize(("number", "name"), [(math.nan, "NaN"), (math.inf, "Infinity"), (-math.inf, "-Infinity")])
def test_a_description_with_a_number_that_is_not_finite_is_refused_and_nothing_written(
    tmp_path: Path, number: float, name: str
) -> None:
    description = {"training": {"learning_rate": number}}
    with pytest.raises(ValueError, match=f"^a description must hold finite numbers, got {name}$"):
        save_network(nn.Linear(2, 1), tmp_path, "network", description)
    assert not any(tmp_path.iterdir())
    with pytest.raises(ValueError, match="not JSON compliant"):
        as_safetensors(nn.Linear(2, 1), description)
