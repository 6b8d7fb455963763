"""SimCLR's loss by hand and against other libraries, and the effect of each option."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from curl_rl.losses import nt_xent, two_view_scores
from curl_rl.objectives import BatchInfo, Features, FeatureSpec, Result, SimCLR, SimCLRConfig

SPEC = FeatureSpec(4, (2, 3, 3))


def features(vector: torch.Tensor) -> Features:
    return Features(vector, torch.zeros(len(vector), *SPEC.map_shape))


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def contrast(first: torch.Tensor, second: torch.Tensor, **options: Any) -> Result:
    torch.manual_seed(0)
    objective = SimCLR(SPEC, SimCLRConfig(**options)).double()
    return objective([features(first), features(second)], [], BatchInfo())


def test_two_images_by_hand() -> None:
    """Without a head; image 0 is orthogonal to image 1 in both views."""
    first = torch.tensor([[2.0, 0, 0, 0], [0, 3.0, 0, 0]], dtype=torch.float64)
    second = torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 1.0, 0]], dtype=torch.float64)
    result = contrast(first, second, head_layers=0, temperature=0.5)
    near = 1 / math.sqrt(2)  # the cosine of image 1's views; all other pairs except image 0's are orthogonal
    by_hand = [-math.log(math.exp(2 * s) / (math.exp(2 * s) + 2)) for s in (1, near, 1, near)]
    assert result.loss.item() == pytest.approx(sum(by_hand) / 4, rel=1e-10)
    assert result.metrics["accuracy"] == 1
    assert result.metrics["alignment"].item() == pytest.approx((2 - 2 * near) / 2)


@pytest.mark.parametrize("batch", [2, 3, 8])
def test_the_loss_is_pytorch_metric_learnings(batch: int) -> None:
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    first, second = draw(batch, 4), draw(batch, 4, seed=1)
    oracle = losses.NTXentLoss(temperature=0.1)(torch.cat([first, second]), torch.arange(batch).repeat(2))
    assert contrast(first, second, head_layers=0).loss.item() == pytest.approx(oracle.item(), rel=1e-6)


def test_batch_norm_in_the_head_sees_both_views_at_once() -> None:
    torch.manual_seed(0)
    objective = SimCLR(SPEC, SimCLRConfig(dim=3)).double()
    first, second = draw(5, 4), 2 + draw(5, 4, seed=1)
    embeddings = F.normalize(objective.head(torch.cat([first, second])))
    oracle = pytest.importorskip("pytorch_metric_learning.losses").NTXentLoss(temperature=0.1)
    expected = oracle(embeddings, torch.arange(5).repeat(2)).item()
    result = objective([features(first), features(second)], [], BatchInfo())
    assert result.loss.item() == pytest.approx(expected, rel=1e-6)


def test_the_views_may_be_swapped() -> None:
    first, second = draw(5, 4), draw(5, 4, seed=1)
    for options in ({}, {"loss": "nt_logistic"}, {"loss": "margin_triplet", "margin": 1.0}, {"tau_plus": 0.1}):
        forth, back = contrast(first, second, **options), contrast(second, first, **options)
        assert torch.allclose(forth.loss, back.loss, rtol=1e-10)


def test_only_the_normalized_loss_ignores_lengths() -> None:
    first, second = draw(5, 4), draw(5, 4, seed=1)
    lengths = torch.linspace(0.5, 3, 5, dtype=torch.float64)[:, None]
    for normalize in (True, False):
        plain, scaled = (
            contrast(x, second, head_layers=0, normalize=normalize).loss.item() for x in (first, lengths * first)
        )
        assert (scaled == pytest.approx(plain, rel=1e-9)) is normalize


def test_the_corrections_are_passed_on_and_at_zero_are_plain_simclr() -> None:
    first, second = draw(5, 4), draw(5, 4, seed=1)
    plain = contrast(first, second, head_layers=0, temperature=0.5).loss
    scores = two_view_scores(F.normalize(first), F.normalize(second))
    for tau_plus, beta in ((0.0, 0.0), (0.1, 0.0), (0.0, 1.0), (0.1, 1.0)):
        ours = contrast(first, second, head_layers=0, temperature=0.5, tau_plus=tau_plus, beta=beta).loss
        assert torch.allclose(ours, nt_xent(scores, 0.5, tau_plus=tau_plus, beta=beta), rtol=1e-12)
        assert torch.equal(ours, plain) is (tau_plus == beta == 0)


def test_the_losses_options_are_the_losses() -> None:
    """Two images, orthogonal in both views: positives 1, negatives 0, temperature ½."""
    eye = torch.eye(4, dtype=torch.float64)[:2]
    options: dict[str, Any] = {"head_layers": 0, "temperature": 0.5}
    logistic = contrast(eye, eye, loss="nt_logistic", **options).loss.item()
    assert logistic == pytest.approx(math.log(1 + math.exp(-2)) + math.log(2), rel=1e-10)
    triplet = contrast(eye, eye, loss="margin_triplet", margin=1.25, **options).loss.item()
    assert triplet == pytest.approx(0.25, rel=1e-10)
    assert contrast(eye, eye, loss="margin_triplet", margin=0.5, **options).loss == 0


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({"head_layers": 0}, []),
        ({"head_layers": 1}, [(128, 4)]),
        ({}, [(4, 4), (128, 4)]),
        ({"head_layers": 3, "hidden": 7, "dim": 5}, [(7, 4), (7, 7), (5, 7)]),
    ],
)
def test_the_heads_shape_follows_the_options(options: dict[str, Any], sizes: list[tuple[int, int]]) -> None:
    objective = SimCLR(SPEC, SimCLRConfig(**options))
    weights = [module.weight for module in objective.head.modules() if isinstance(module, torch.nn.Linear)]
    assert [tuple(weight.shape) for weight in weights] == sizes
    assert len(objective.head.layers) == len(sizes), "one child to a layer, so that it can be sliced"
