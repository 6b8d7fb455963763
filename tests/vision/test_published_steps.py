"""Steps with the cifar10 preset's settings against those of the released code that the settings are from.

Each oracle is the source's loss and optimizer written out in plain PyTorch, on a small network and a small batch; like
ours, it exempts biases and norms from weight decay. The learning rates are the sources', for their batch sizes.
"""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curl_rl.encoders.resnet import ResNet
from curl_rl.objectives import BYOL, BarlowTwins, BatchInfo, MoCo, SimCLR, SimSiam, SupCon, ViewSpec, build_objective
from curl_rl.pretraining.learner import Learner
from curl_rl.vision.config import VisionConfig, load_preset

BATCH, SIDE, STEPS = 8, 8, 2
LABELS = torch.tensor([0, 1, 2, 0, 3, 0, 1, 4])
Views = dict[ViewSpec, Tensor]


@functools.cache
def preset(method: str) -> VisionConfig:
    """The cifar10 preset with narrow networks and batch norm in one part, and without warm-up."""
    return load_preset(
        "cifar10",
        method,
        {
            "encoder": {"resnet": {"width": 1 / 16, "batch_norm_splits": 1}},
            "optimizer": {"warmup_epochs": 0},
            "objectives": {"byol": {"hidden": 12}, "simsiam": {"dim": 12}, "barlow": {"dim": 12}},
        },
    )


def untrained(method: str) -> Learner:
    config = preset(method)
    torch.manual_seed(0)
    encoder = ResNet((3, SIDE, SIDE), config.encoder.resnet).double()
    objective = build_objective(config.method, encoder.feature_spec, config.objectives)
    assert objective is not None
    # A run of a million steps: for the first two, learning rate and momentum have not moved.
    return Learner(encoder, objective.double(), config.optimizer, batch_size=BATCH, steps_per_epoch=1_000_000, epochs=1)


def batches() -> list[Views]:
    generator = torch.Generator().manual_seed(1)
    shape = (BATCH, 3, SIDE, SIDE)
    return [
        {ViewSpec(i): torch.rand(shape, generator=generator, dtype=torch.float64) for i in range(2)}
        for _ in range(STEPS)
    ]


def cosine(first: Tensor, second: Tensor) -> Tensor:
    return F.cosine_similarity(first, second.detach()).mean()


def lightlys_byol(trained: Learner, first: Tensor, second: Tensor) -> Tensor:
    objective, target = trained.objective, trained.target
    assert isinstance(objective, BYOL)
    assert target is not None
    predictions = [objective.predictor(objective.projector(trained.encoder(view))) for view in (first, second)]
    targets = [objective.target_projector(target(view)) for view in (first, second)]
    return 0.5 * (-cosine(predictions[0], targets[1]) - cosine(predictions[1], targets[0]))


def lightlys_barlow(trained: Learner, first: Tensor, second: Tensor) -> Tensor:
    assert isinstance(trained.objective, BarlowTwins)
    embeddings = [trained.objective.projector(trained.encoder(view)) for view in (first, second)]
    a, b = (F.batch_norm(embedding, None, None, training=True) for embedding in embeddings)
    distance = (a.T @ b / BATCH - torch.eye(a.shape[1])).square()
    return distance.diagonal().sum() + 5e-3 * (distance.sum() - distance.diagonal().sum())


def released_simsiam(trained: Learner, first: Tensor, second: Tensor) -> Tensor:
    objective = trained.objective
    assert isinstance(objective, SimSiam)
    z = [objective.projector(trained.encoder(view)) for view in (first, second)]
    p = [objective.predictor(projection) for projection in z]
    return -(cosine(p[0], z[1]) + cosine(p[1], z[0])) * 0.5


def released_simclr(trained: Learner, first: Tensor, second: Tensor) -> Tensor:
    """objective.py: a mean over the rows of each half, and the sum of the two."""
    assert isinstance(trained.objective, SimCLR)
    a, b = F.normalize(trained.objective.head(trained.encoder(torch.cat([first, second])))).chunk(2)
    itself, labels = 1e9 * torch.eye(BATCH), torch.arange(BATCH)
    loss_a = F.cross_entropy(torch.cat([a @ b.T / 0.5, a @ a.T / 0.5 - itself], 1), labels)
    loss_b = F.cross_entropy(torch.cat([b @ a.T / 0.5, b @ b.T / 0.5 - itself], 1), labels)
    return loss_a + loss_b


def moco_notebook(trained: Learner, first: Tensor, second: Tensor) -> Tensor:
    """With our queue, which is empty at first instead of random."""
    objective, target = trained.objective, trained.target
    assert isinstance(objective, MoCo)
    assert objective.queue is not None
    assert target is not None
    queue = objective.queue.embeddings[objective.queue.valid]
    loss = torch.zeros((), dtype=torch.float64)
    for query_view, key_view in ((first, second), (second, first)):
        query = F.normalize(objective.head(trained.encoder(query_view)))
        key = F.normalize(objective.key_head(target(key_view))).detach()
        logits = torch.cat([(query * key).sum(1, keepdim=True), query @ queue.double().T], 1) / 0.1
        loss = loss + F.cross_entropy(logits, torch.zeros(BATCH, dtype=torch.int64))
    return loss


def released_supcon(trained: Learner, first: Tensor, second: Tensor) -> Tensor:
    """losses.py: the log of each positive's share of all others, times temperature / base_temperature."""
    assert isinstance(trained.objective, SupCon)
    z = F.normalize(trained.objective.head(trained.encoder(torch.cat([first, second]))))
    others = 1 - torch.eye(2 * BATCH)
    positives = (LABELS.repeat(2)[:, None] == LABELS.repeat(2)) * others
    logits = z @ z.T / 0.1
    log_share = logits - (others * logits.exp()).sum(1, keepdim=True).log()
    return -(0.1 / 0.07) * ((positives * log_share).sum(1) / positives.sum(1)).mean()


@torch.no_grad()
def sgd(weight: nn.Parameter, velocity: Tensor, lr: float, decay: float) -> None:
    """PyTorch's: the velocity holds gradients, not steps."""
    assert weight.grad is not None
    velocity.mul_(0.9).add_(weight.grad + (decay if weight.ndim > 1 else 0) * weight)
    weight.sub_(lr * velocity)


@torch.no_grad()
def lars(weight: nn.Parameter, velocity: Tensor, lr: float, decay: float) -> None:
    """lars_optimizer.py, with classic momentum."""
    assert weight.grad is not None
    gradient = weight.grad
    if weight.ndim > 1:
        gradient = gradient + decay * weight
        lr = lr * float(0.001 * weight.norm() / gradient.norm()) if gradient.norm() > 0 < weight.norm() else lr
    velocity.mul_(0.9).add_(lr * gradient)
    weight.sub_(velocity)


@pytest.mark.parametrize(
    ("method", "loss", "optimizer", "lr", "decay"),
    [
        ("byol", lightlys_byol, sgd, 0.06 * BATCH / 128, 5e-4),
        ("barlow", lightlys_barlow, sgd, 0.06 * BATCH / 128, 5e-4),
        ("simsiam", released_simsiam, sgd, 0.03 * BATCH / 256, 5e-4),
        ("simclr", released_simclr, lars, 1.0 * BATCH / 256, 1e-4),
        ("moco", moco_notebook, sgd, 0.06 * BATCH / 512, 5e-4),
        ("supcon", released_supcon, sgd, 0.5 * BATCH / 1024, 1e-4),
    ],
)
def test_two_steps_are_those_of_the_source(method: str, loss: Any, optimizer: Any, lr: float, decay: float) -> None:
    ours = untrained(method)
    theirs = copy.deepcopy(ours)  # for its networks
    weights = [weight for weight in theirs.parameters() if weight.requires_grad]
    velocities = [torch.zeros_like(weight) for weight in weights]
    start = [weight.detach().clone() for weight in weights]
    for views in batches():
        theirs.zero_grad()
        loss(theirs, *views.values()).backward()
        for weight, velocity in zip(weights, velocities, strict=True):
            optimizer(weight, velocity, lr, decay)
        ours.step(views, BatchInfo(labels=LABELS), torch.arange(BATCH))
        # Slow copies and queue are taken from ours; tests/pretraining/test_learner.py covers them.
        copy_slow_parts(ours, theirs)
    trained = [weight for weight in ours.parameters() if weight.requires_grad]
    for weight, expected, before in zip(trained, weights, start, strict=True):
        assert (weight - expected).norm() <= 1e-4 * (expected - before).norm() + 1e-12


@torch.no_grad()
def copy_slow_parts(source: Learner, destination: Learner) -> None:
    pairs = [*zip(destination.objective.buffers(), source.objective.buffers(), strict=True)]
    if source.target is not None and destination.target is not None:
        pairs += zip(destination.target.parameters(), source.target.parameters(), strict=True)
    for own, given in pairs:
        own.copy_(given)


@pytest.mark.parametrize(
    ("method", "identity"),
    [
        # resnet.py of google-research/simclr, simsiam/builder.py, main.py of facebookresearch/barlowtwins.
        ("simclr", True),
        ("simsiam", True),
        ("barlow", True),
        # MoCo's notebook has torchvision's default, and lightly's network no such option.
        ("moco", False),
        ("byol", False),
    ],
)
def test_residual_blocks_start_as_the_identity_where_the_source_says_so(method: str, identity: bool) -> None:
    encoder = untrained(method).encoder
    assert isinstance(encoder, ResNet)
    given = torch.rand(2, 4, 5, 5, dtype=torch.float64)
    assert torch.equal(encoder.layer1(given), given) == identity
