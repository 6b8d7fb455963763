"""The program has the loss and the views of the package, which makes a comparison of speed fair."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from curl_rl.objectives import BatchInfo, ViewSpec
from curl_rl.objectives.simclr import SimCLR
from curl_rl.pretraining.learner import Learner
from curl_rl.vision.config import load_preset
from curl_rl.vision.networks import build_networks
from curl_rl.vision.views import make_views
from examples import simclr_on_images as example

CPU = torch.device("cpu")


def test_the_losses_of_given_views_are_the_same_step_by_step() -> None:
    narrow = {"resnet": {"width": 1 / 16}, "precision": "float32"}
    config = load_preset("cpu", "simclr", {"encoder": narrow, "optimizer": {"warmup_epochs": 0}})
    torch.manual_seed(0)
    encoder, objective = build_networks(config, 3, CPU)
    assert isinstance(objective, SimCLR)
    # So many steps to come that the learning rate hardly falls in these.
    ours = Learner(encoder, objective, config.optimizer, batch_size=6, steps_per_epoch=10_000, epochs=10)
    simclr = config.objectives.simclr
    plain = example.SimCLR(4, lr=config.optimizer.lr, temperature=simclr.temperature, device=CPU)
    plain.encoder.load_state_dict(encoder.state_dict())
    weights = [value.detach().clone() for value in objective.head.parameters()]
    for mine, theirs in zip([p for p in plain.head.parameters() if p.requires_grad], weights, strict=True):
        mine.data.copy_(theirs)
    generator = torch.Generator().manual_seed(1)
    for _ in range(4):
        views = [torch.rand(6, 3, 32, 32, generator=generator) for _ in range(2)]
        expected = float(plain.loss(*views).detach())
        metrics, _ = ours.step({ViewSpec(i): view for i, view in enumerate(views)}, BatchInfo(), torch.arange(6))
        assert float(metrics["loss"]) == pytest.approx(expected, rel=1e-3)
        plain.update(*views)


def test_views_are_drawn_from_the_same_distribution() -> None:
    config = load_preset("cpu", "simclr").augment
    # Three channels that differ, and a gradient: crops, mirroring, colours and greyscale all move these moments.
    ramp = np.linspace(20, 230, 32)
    image = np.stack([np.add.outer(ramp, ramp) / 2, np.tile(ramp, (32, 1)), np.full((32, 32), 90.0)], -1)
    draws = 1500
    drawn = torch.stack([view for _ in range(draws // 2) for view in _both(image.astype(np.uint8), config.scale)])
    pixels = torch.from_numpy(image.astype(np.uint8)).permute(2, 0, 1).expand(draws, -1, -1, -1).contiguous()
    ours = make_views(pixels, config, torch.Generator().manual_seed(0))[ViewSpec(0)]
    for moment in (_mean, _spread, _saturation, _slope):
        a, b = moment(drawn), moment(ours)
        error = (a.var(0) / draws + b.var(0) / draws).sqrt()
        # Pillow rounds to bytes after every step.
        assert ((a.mean(0) - b.mean(0)).abs() < 4 * error + 0.004).all(), moment.__name__
        assert torch.allclose(a.std(0), b.std(0), rtol=0.12, atol=0.004), moment.__name__


def _both(image: np.ndarray, scale: tuple[float, float]) -> tuple[torch.Tensor, torch.Tensor]:
    return example.Views(image[None], scale)[0]


def _mean(views: torch.Tensor) -> torch.Tensor:
    return views.mean((2, 3))


def _spread(views: torch.Tensor) -> torch.Tensor:
    return views.std((2, 3))


def _saturation(views: torch.Tensor) -> torch.Tensor:
    return (views.amax(1) - views.amin(1)).mean((1, 2))


def _slope(views: torch.Tensor) -> torch.Tensor:
    return views[..., 16:].mean((1, 2, 3)) - views[..., :16].mean((1, 2, 3))


def test_a_pass_is_whole_batches_of_the_images() -> None:
    loader = example.batches(example.Views(np.zeros((7, 8, 8, 3), np.uint8), (0.2, 1.0)), 3, workers=0, device=CPU)
    assert [tuple(first.shape) for first, _ in loader] == [(3, 3, 8, 8)] * 2


class Numbered(example.Views):
    """Gives the images' numbers in place of views."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.tensor(index), torch.tensor(index)


def test_repeats_are_one_longer_pass_over_the_same_images() -> None:
    images = Numbered(np.zeros((6, 8, 8, 3), np.uint8), (0.2, 1.0))
    drawn = [first for first, _ in example.batches(images, 3, workers=0, device=CPU, repeats=4)]
    assert len(drawn) == 8
    assert torch.cat(drawn).bincount().tolist() == [4] * 6


@pytest.mark.parametrize(("device", "pinned"), [("cpu", False), ("cuda", True)])
def test_batches_for_a_gpu_are_pinned(device: str, pinned: bool) -> None:
    images = example.Views(np.zeros((6, 8, 8, 3), np.uint8), (0.2, 1.0))
    assert example.batches(images, 3, workers=0, device=torch.device(device)).pin_memory == pinned


def test_views_are_mirrored_as_often_as_asked_for() -> None:
    image = np.zeros((1, 8, 8, 3), np.uint8)
    image[:, :, :4] = 255
    for mirror, sides in ((0.0, {True}), (1.0, {False}), (0.5, {True, False})):
        views = example.Views(image, (1.0, 1.0), mirror)
        assert {bool(view[0, 4, 0] > view[0, 4, -1]) for _ in range(20) for view in views[0]} == sides


def test_neighbors_vote() -> None:
    train, labels = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]), torch.tensor([1, 0, 0])
    test = torch.tensor([[0.8, -0.6], [0.6, 0.8]])
    assert example.neighbors_accuracy(train, labels, test, torch.tensor([1, 0]), k=1) == 1
    assert example.neighbors_accuracy(train, labels, test, torch.tensor([1, 0]), k=3) == 0.5


def test_the_program_says_what_it_learns() -> None:
    pytest.importorskip("sklearn")
    line = [sys.executable, example.__file__, "--epochs", "1", "--width", "2"]
    printed = subprocess.run(line, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [re.sub(r"\d+\.\d+", "x", row) for row in printed] == [
        f"nearest neighbors, {name}: x% of 497 held-out digits" for name in ("raw pixels", "untrained", "1 epochs")
    ]


@pytest.mark.slow
def test_the_program_learns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.setattr("sys.argv", ["simclr_on_images.py"])
    example.main()
    scores = [float(line.partition(": ")[2].partition("%")[0]) for line in capsys.readouterr().out.splitlines()]
    assert scores[-1] > scores[1] + 1
