"""The cosine loss against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch

from curl_rl.losses import negative_cosine


def test_negative_cosine_by_hand() -> None:
    first = torch.tensor([[3.0, 4.0], [1.0, 0.0]], dtype=torch.float64)
    second = torch.tensor([[2.0, 0.0], [0.0, 5.0]], dtype=torch.float64)
    assert negative_cosine(first, second).item() == pytest.approx(-(3 / 5 + 0) / 2, rel=1e-12)
