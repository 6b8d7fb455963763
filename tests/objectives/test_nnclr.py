"""NNCLR against its algorithm written out, neighbors by brute force, and the cases in which it is InfoNCE."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from curl_rl.losses import info_nce
from curl_rl.objectives import NNCLR, BatchInfo, Features, FeatureSpec, NNCLRConfig, Result
from helpers.random_tensors import draw, unit

SPEC = FeatureSpec(3, (2, 3, 3))
STILL = torch.tensor(1.0)


def make(queue: int = 8, **settings: Any) -> NNCLR:
    """With the identity as its projector and a linear predictor."""
    torch.manual_seed(0)
    objective = NNCLR(SPEC, NNCLRConfig(queue=queue, dim=3, **settings)).double()
    objective.projector = nn.Identity()  # type: ignore[assignment]
    objective.predictor = nn.Linear(3, 3).double()  # type: ignore[assignment]
    return objective


def features(vectors: Tensor) -> Features:
    return Features(vectors, torch.zeros(len(vectors), *SPEC.map_shape))


def contrast(objective: NNCLR, first: Tensor, second: Tensor) -> Result:
    result: Result = objective([features(first), features(second)], [], BatchInfo())
    return result


def predicted(objective: NNCLR, view: Tensor) -> Tensor:
    predictions: Tensor = nn.functional.normalize(objective.predictor(view)).detach()
    return predictions


def test_many_steps_are_the_algorithm_written_out() -> None:
    """Neighbors by distance among the newest first views of past batches; the queue wraps within a batch."""
    objective = make(queue=7, temperature=0.3)
    queue: list[np.ndarray] = []
    for step in range(5):
        views = [draw(3, 3, seed=2 * step), draw(3, 3, seed=2 * step + 1)]
        embeddings = [nn.functional.normalize(view).numpy() for view in views]
        predictions = [predicted(objective, view).numpy() for view in views]
        total, similarity = 0.0, 0.0
        for own, other in ((0, 1), (1, 0)):
            for i, embedding in enumerate(embeddings[own]):
                neighbor = min(queue, key=lambda past: float(np.sum((past - embedding) ** 2)), default=embedding)
                scores = [float(neighbor @ prediction) / 0.3 for prediction in predictions[other]]
                total += (math.log(sum(map(math.exp, scores))) - scores[i]) / 3 / 2
                similarity += float(neighbor @ embedding) / 3 if own == 0 else 0
        result = contrast(objective, *views)
        assert result.loss.item() == pytest.approx(total, rel=1e-9), step
        assert result.metrics["neighbor_similarity"].item() == pytest.approx(similarity, rel=1e-9), step
        queue = [*queue, *embeddings[0]][-7:]
        objective.after_step(result.carry, STILL)


@pytest.mark.parametrize("filled", [False, True])
def test_embeddings_that_are_their_own_neighbors_make_it_info_nce(filled: bool) -> None:
    objective, views = make(temperature=0.4), [draw(4, 3), draw(4, 3, seed=1)]
    if filled:
        objective.queue.push(nn.functional.normalize(torch.cat(views)))
    first, second = (nn.functional.normalize(view) for view in views)
    expected = info_nce(first @ predicted(objective, views[1]).T / 0.4)
    expected = (expected + info_nce(second @ predicted(objective, views[0]).T / 0.4)) / 2
    result = contrast(objective, *views)
    assert result.loss.item() == pytest.approx(expected.item(), rel=1e-12)
    assert result.metrics["neighbor_similarity"].item() == pytest.approx(1)


def test_a_single_past_embedding_is_everyones_neighbor() -> None:
    objective, views = make(temperature=0.5), [draw(4, 3), draw(4, 3, seed=1)]
    only = unit(1, 3, seed=9)
    objective.queue.push(only)
    total = 0.0
    for view in views:
        scores = [float(only[0] @ prediction) / 0.5 for prediction in predicted(objective, view)]
        total += (math.log(sum(map(math.exp, scores))) - sum(scores) / 4) / 2
    assert contrast(objective, *views).loss.item() == pytest.approx(total, rel=1e-12)


def test_no_gradient_goes_through_the_neighbors() -> None:
    """Of an empty queue, too: the predictor's input has one, the neighbor has none."""
    objective, views = make(), [draw(4, 3).requires_grad_(), draw(4, 3, seed=1).requires_grad_()]
    objective.predictor = nn.Linear(3, 3).double().requires_grad_(False)  # type: ignore[assignment]
    with torch.no_grad():
        objective.predictor.weight.zero_()
        objective.predictor.bias.fill_(1.0)  # predictions no longer depend on the views
    gradients = torch.autograd.grad(contrast(objective, *views).loss, views)
    assert all(torch.equal(gradient, torch.zeros_like(gradient)) for gradient in gradients)


def test_the_heads_are_the_papers() -> None:
    """As quoted in lightly's heads: [2048, 2048, d] with batch norm throughout; [4096, d] without it at the end."""
    objective = NNCLR(FeatureSpec(2048, (1, 1, 1)), NNCLRConfig(queue=1))
    for head, sizes, norms in (
        (objective.projector, [(2048, 2048), (2048, 2048), (256, 2048)], [2048, 2048, 256]),
        (objective.predictor, [(4096, 256), (256, 4096)], [4096]),
    ):
        assert [tuple(part.weight.shape) for part in head.modules() if isinstance(part, nn.Linear)] == sizes
        found = [part for part in head.modules() if isinstance(part, nn.BatchNorm1d)]
        assert [part.num_features for part in found] == norms
        assert sum(isinstance(part, nn.ReLU) for part in head.modules()) == len(sizes) - 1


def test_a_queue_smaller_than_a_batch_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^objectives.nnclr.queue must be at least 4, the samples of one batch, got 3$"
    ):
        contrast(make(queue=3), draw(4, 3), draw(4, 3, seed=1))
