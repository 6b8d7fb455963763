"""Networks, batches and data that do not fit together are refused before a run starts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from curl_rl.encoders import EncoderConfig
from curl_rl.encoders.resnet import ResNetConfig
from curl_rl.objectives import DataSpec, MoCoConfig, ObjectiveConfigs, ObjectiveUser
from curl_rl.pretraining import distributed
from curl_rl.pretraining.checks import try_out
from curl_rl.pretraining.config import BackboneConfig
from curl_rl.runs.errors import UserError
from helpers.noise_source import RESNET, NoiseSource, Plan

pytestmark = pytest.mark.usefixtures("dummies")


def tried(smallest: int = 8, data: DataSpec = NoiseSource().data, **changes: Any) -> Any:  # noqa: B008
    plan = replace(Plan(Path("never made"), method="simclr"), **changes)
    user = ObjectiveUser("method", "noise", NoiseSource.has)
    return try_out(plan, {"image": (3, 8, 8)}, data, user, smallest_side=smallest)


def test_what_fits_gives_the_objective_without_weights() -> None:
    objective = tried(method="clustered")
    assert {buffer.device.type for buffer in objective.buffers()} == {"meta"}
    assert objective.bank.shape == (11, 4)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"encoder": BackboneConfig(resnet=ResNetConfig(batch_norm_splits=2))}, "splits 2 must divide batch_size 5"),
        (
            {"encoder": replace(RESNET, resnet=replace(RESNET.resnet, batch_norm_splits=5)), "smallest": 4},
            "batch_norm_splits 5 leaves batch norm a single value in the last feature maps: "
            "use fewer splits of batch_size 5",
        ),
        ({"encoder": BackboneConfig("pixel", pixel=EncoderConfig(2, (2, 2, 2)))}, "too small for 3 convolutions"),
        (
            {"objectives": ObjectiveConfigs(moco=MoCoConfig(queue=3)), "method": "moco"},
            "queue must be at least 5, the",
        ),
        ({"method": "labeled"}, "method labeled needs labels, which noise does not have: take simclr"),
        ({"method": "clustered", "data": DataSpec()}, "objectives.clustered needs the number of samples, got none"),
        ({"method": "none"}, "method must be one that trains, got none"),
        ({"method": "simclear"}, "unknown objective 'simclear'.*; did you mean simclr"),
    ],
)
def test_what_does_not_fit_is_one_line(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line) as refused:
        tried(**changes)
    assert "\n" not in str(refused.value)


def test_fewer_samples_than_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: 6)
    with pytest.raises(UserError, match="batch_size must be at least the number of processes, 6, got 5"):
        tried()
