"""An objective that depends on actions, for tests of those who hand them on: no method of the package does yet."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from curl_rl.objectives import (
    BatchInfo,
    CurlConfig,
    DataSpec,
    Features,
    FeatureSpec,
    Method,
    Objective,
    Result,
    ViewSpec,
)


class ForwardModel(Objective):
    """From an observation and the actions that follow to the features two and four steps ahead; a linear model."""

    needs = frozenset({"actions"})
    online_views = (ViewSpec(0),)
    target_views = (ViewSpec(1, future=4), ViewSpec(2, future=2))
    steps = 4
    seen: torch.Tensor | None = None
    """The actions of the last call of ``forward``."""

    def __init__(self, features: FeatureSpec, action_dim: int) -> None:
        super().__init__()
        self.action_dim = action_dim
        self.by_actions = nn.Linear(self.steps * action_dim, features.dim)

    @classmethod
    def build(cls, features: FeatureSpec, config: Any, data: DataSpec) -> ForwardModel:
        assert data.action_dim is not None
        return cls(features, data.action_dim)

    def forward(self, online: list[Features], target: list[Features], batch: BatchInfo) -> Result:
        assert batch.actions is not None
        assert batch.actions.shape == (len(online[0].vector), self.steps, self.action_dim)
        self.seen = batch.actions
        predicted = online[0].vector + self.by_actions(batch.actions.flatten(1))
        return Result(F.mse_loss(predicted, target[0].vector) + F.mse_loss(predicted, target[1].vector))


METHOD = Method("forward_model", ForwardModel, CurlConfig, paper="none", summary="Features ahead, by the actions.")
