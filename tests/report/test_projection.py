"""Principal components against the eigenvectors of the covariance."""

from __future__ import annotations

import numpy as np
import torch

from curl_rl.report.projection import principal_components


def test_coordinates_are_those_along_the_eigenvectors_of_the_covariance() -> None:
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(40, 6, generator=generator) * torch.tensor([5.0, 3.0, 1.0, 1.0, 0.5, 0.1]) + 7
    coordinates, shares = principal_components(features)
    values, vectors = np.linalg.eigh(np.cov(features.double().numpy().T))
    expected = (features.double() - features.double().mean(0)).numpy() @ vectors[:, [-1, -2]]
    assert np.allclose(np.abs(coordinates.numpy()), np.abs(expected), atol=1e-6)
    assert np.allclose(shares, values[[-1, -2]] / values.sum())
    assert all(column[column.abs().argmax()] > 0 for column in coordinates.T)


def test_points_and_lines_have_fewer_directions() -> None:
    still, shares = principal_components(torch.ones(5, 3))
    assert still.abs().max() == 0
    assert shares.tolist() == [0, 0]
    line, shares = principal_components(torch.arange(4.0)[:, None] * torch.tensor([[3.0, 4.0]]))
    assert np.allclose(np.abs(line[:, 0].numpy()), [7.5, 2.5, 2.5, 7.5])  # 5 a step, from their mean
    assert np.allclose(shares, [1, 0])
    narrow, _ = principal_components(torch.tensor([[0.0], [2.0]]))
    assert np.allclose(np.abs(narrow.numpy()), [[1, 0], [1, 0]])
