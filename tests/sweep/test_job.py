"""Names of jobs: readable, and different for different jobs."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from curl_rl.sweep.job import Job


@pytest.mark.parametrize(
    ("job", "name"),
    [
        (Job("cartpole-swingup", "cpu", (), 1), "cartpole-swingup/cpu/seed1"),
        (
            Job("walker-walk", "curl", (("agent.objective", "none"), ("frames", "100000")), 12),
            "walker-walk/curl,agent.objective=none,frames=100000/seed12",
        ),
        (Job("gym:Pusher-v5", "cpu", (("agent.encoder.strides", "[2,1]"),), 0), None),
    ],
)
def test_name_by_hand(job: Job, name: str | None) -> None:
    assert job.name == (name or "gym=Pusher-v5/cpu,agent.encoder.strides=[2%2C1]/seed0")


def test_different_jobs_have_different_folders_that_nothing_leads_out_of() -> None:
    # Texts in which separators, escapes and special folders occur, in every place of a job.
    odd = [
        "a",
        "a,b=c",
        "a%2Cb",
        "a,b",
        "a=b",
        "a:b",
        "a/b",
        "..",
        ".",
        "%2E",
        "a@b",
        "é",
        " a",
        "x" * 400,
        "x" * 401,
        "A",
    ]
    made = [
        Job(env, preset, settings, 1)
        for env, preset in itertools.product(odd, odd)
        for settings in [(), *((("b", value),) for value in odd), (("b", "c"), ("d", "e")), (("b", "c,d=e"),)]
    ]
    names = [job.name for job in made]
    assert len(set(names)) == len(made)
    for name in names:
        parts = name.split("/")
        assert len(parts) == 3
        assert not {"", ".", ".."} & set(parts)
        assert all(len(f"{part}.json.partial".encode()) <= 255 for part in parts)
        assert Path(name).parts == tuple(parts)


def test_flags_are_those_of_training() -> None:
    job = Job("tiny-reach", "cpu", (("agent.lr", "0.001"), ("frames", "20")), 3)
    assert job.flags == ["--env", "tiny-reach", "--preset", "cpu", "--seed", "3", "--agent.lr=0.001", "--frames=20"]
