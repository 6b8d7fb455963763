"""Evaluation mode for the length of a block."""

from __future__ import annotations

import pytest
from torch import nn

from curl_rl.encoders import evaluating


def test_every_part_returns_to_its_own_mode() -> None:
    module = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm1d(2), nn.Dropout()))
    module.train()
    module[1][0].eval()  # type: ignore[index]
    before = [part.training for part in module.modules()]
    assert before == [True, True, True, False, True]

    def fails_inside() -> None:
        with evaluating(module):
            assert not any(part.training for part in module.modules())
            raise KeyError

    with pytest.raises(KeyError):
        fails_inside()
    assert [part.training for part in module.modules()] == before
