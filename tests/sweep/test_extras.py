"""The messages on an engine or a search whose library is not installed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from curl_rl.runs.errors import UserError
from curl_rl.sweep.grid import Grid
from curl_rl.sweep.ray_cluster import RayCluster
from curl_rl.sweep.search import Search
from curl_rl.sweep.slurm import SubmittedJobs


@pytest.mark.parametrize(
    ("library", "extra", "use"),
    [
        ("ray", "ray", lambda: RayCluster(None, 1, None)),
        ("submitit", "slurm", lambda: SubmittedJobs("slurm", Path("x"), None, 1, None, {})),
        ("optuna", "optuna", lambda: Search(Grid((), (), ()), {}, 1, Path("x"))),
    ],
    ids=["ray", "submitit", "optuna"],
)
def test_absent_library_is_named_with_its_extra(
    library: str, extra: str, use: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(
        UserError, match=rf": pip install {library}, or install this package with the extra \[{extra}\]$"
    ):
        use()
