"""Jobs as tasks of a real Ray on this machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from curl_rl.sweep.ray_cluster import RayCluster
from helpers.stand_in_jobs import FAILS, driver, jobs, notes

ray = pytest.importorskip("ray", reason="Ray is not installed")


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """A cluster of two cores and a GPU that is not there, for its fractions."""
    ray.init(num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


@pytest.mark.filterwarnings("ignore")
def test_jobs_run_once_and_a_killed_and_a_failing_one_are_tried_again(tmp_path: Path) -> None:
    killed = "[ $SEED = 1 ] && [ ! -e tried ] && { touch tried; kill -9 $PPID; kill -9 $$; }; "
    failing = f"[ $SEED = 2 ] && {{ {FAILS}; }}; :"
    assert driver(tmp_path, jobs(3), killed + failing, RayCluster(None, 1, 0.25)).run() == 1
    assert Counter(notes(tmp_path)) == Counter({"start 1": 2, "end 1": 1, "start 2": 2, "start 3": 1, "end 3": 1})
    assert driver(tmp_path, jobs(3), ":", RayCluster(None, 1, 0)).run() == 0
    assert Counter(notes(tmp_path))["start 3"] == 1


@pytest.mark.filterwarnings("ignore")
def test_a_gpu_holds_as_many_jobs_as_fractions(tmp_path: Path) -> None:
    script = "sleep 0.3; echo gpu $CUDA_VISIBLE_DEVICES >> gpus"
    assert driver(tmp_path, jobs(3), script, RayCluster(None, 1, 0.5)).run() == 0
    assert (tmp_path / "gpus").read_text().splitlines() == ["gpu 0"] * 3
    assert driver(tmp_path, jobs(3, "other"), script, RayCluster(None, 1, 1)).run() == 0
    assert [note.split()[0] for note in notes(tmp_path)[6:]] == ["start", "end"] * 3  # one after another
