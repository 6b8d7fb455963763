"""The slots of a pool: never more threads than cores, and every GPU in turn."""

from __future__ import annotations

import pytest

from curl_rl.rl.config import load_preset
from curl_rl.runs.errors import UserError
from curl_rl.sweep import local
from curl_rl.sweep.engines import memory_of
from curl_rl.sweep.local import slots_of, visible_gpus


@pytest.fixture
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(local.os, "sched_getaffinity", lambda _: set(range(request.param)))
    return int(request.param)


@pytest.mark.parametrize("machine", [1, 2, 7, 64], indirect=True)
@pytest.mark.parametrize("threads", [None, 1, 3])
@pytest.mark.parametrize("gpus", [(), ("0",), ("0", "1", "2")], ids=len)
@pytest.mark.parametrize("share", [0.25, 1.0, 2.0])
def test_pool_never_has_more_threads_than_cores(
    machine: int, threads: int | None, gpus: tuple[str, ...], share: float
) -> None:
    for jobs in [None, *range(1, machine + 1)]:
        try:
            slots, each = slots_of(jobs, threads, gpus, share)
        except UserError as error:
            assert "must be" in str(error)  # noqa: PT017
            assert jobs is not None or share > len(gpus) > 0
            continue
        assert len(slots) == (jobs or len(slots))
        assert len(slots) * each <= machine or (len(slots) == 1 and threads == each)
        for name in gpus:
            using = sum(name in slot["CUDA_VISIBLE_DEVICES"].split(",") for slot in slots)
            assert using * min(share, 1) <= 1
        assert {slot["OMP_NUM_THREADS"] for slot in slots} == {str(each)}


@pytest.mark.parametrize("machine", [8], indirect=True)
def test_slots_by_hand(machine: int) -> None:
    assert slots_of(None, None, (), 1)[1] == 1
    assert len(slots_of(None, None, (), 1)[0]) == machine
    assert slots_of(2, None, (), 1)[1] == 4
    assert [len(slots_of(None, None, (), 1, fit)[0]) for fit in (0, 3, 9)] == [1, 3, 8]
    assert slots_of(None, None, (), 1, 3)[1] == 2
    assert len(slots_of(5, None, (), 1, 3)[0]) == 5
    quarters, threads = slots_of(None, None, ("3",), 0.25)
    assert (quarters, threads) == ([{"CUDA_VISIBLE_DEVICES": "3", "OMP_NUM_THREADS": "2"}] * 4, 2)
    pairs, _ = slots_of(None, None, ("0", "1", "2", "3", "4"), 2)
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in pairs] == ["0,1", "2,3"]


@pytest.mark.parametrize("machine", [2], indirect=True)
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((3, None, (), 1), "jobs must be from 1 to 2, for the 2 cores of this machine, got 3: "),
        ((2, 2, (), 1), "jobs must be from 1 to 1, for the 2 cores of this machine for 2 threads each, got 2: "),
        ((2, None, ("0",), 1), "jobs must be from 1 to 1, for the 1 GPUs of this machine with 1 of one per job, got 2"),
        ((None, None, ("0",), 2), "gpus_per_job must be at most the 1 GPUs of this machine, got 2"),
    ],
)
@pytest.mark.usefixtures("machine")
def test_what_does_not_fit_is_refused(
    arguments: tuple[int | None, int | None, tuple[str, ...], float], line: str
) -> None:
    with pytest.raises(UserError) as refused:
        slots_of(*arguments)
    assert str(refused.value).startswith(line)


def test_gpus_keep_the_names_that_the_process_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert visible_gpus(2) == ["4", "7"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert visible_gpus(2) == ["0", "1"]


def test_memory_of_a_run_by_hand() -> None:
    # 25,000 steps of one 100 x 100 frame of three channels, and a gibibyte.
    run = load_preset("curl", "cheetah-run", {"frames": 100_000})
    assert memory_of(run) == pytest.approx(2**30 + 25_000 * 30_000, rel=0.05)
    assert memory_of(load_preset("curl", "cheetah-run", {"replay": {"storage": "disk"}})) == 2**30
