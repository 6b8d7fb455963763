"""The search for a schedule of augmentation policies: PBA (Ho et al. 2019, arXiv 1905.05393).

A population of classifiers trains in intervals, each with its own policy. After an interval the worst quarter takes
over the weights and the policies of members of the best quarter, and explores: it changes the policy taken over. The
policies that the best member and its ancestors have gone through are the schedule. Members are compared on a part of
the training images that none of them learns from; the test images are not used.

The learning rate restarts with each interval, so that members are compared with weights that have settled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from curl_rl.augment import center_crop, population_augment
from curl_rl.augment.autoaugment import LEVELS
from curl_rl.augment.pba import SLOTS, Phase, Policy, Schedule
from curl_rl.encoders import Encoder
from curl_rl.ranges import at_least, check_ranges
from curl_rl.runs import checkpoint
from curl_rl.runs.errors import UserError
from curl_rl.runs.seeds import SEED, derived_seed
from curl_rl.vision.data import balanced_subset
from curl_rl.vision.evaluation.finetuning import (
    Classifier,
    SupervisedConfig,
    new_classifier,
    top1_accuracy,
    train_classifier,
)

_PROBABILITIES = 11  # tenths, 0 to 10
_REDRAWN = 0.2  # probability with which exploring draws a number anew instead of shifting it
_SHIFTS = 4  # it is shifted by 0 to 3
_HELD_OUT = 0.2  # share of the training images


@dataclass(frozen=True)
class SearchConfig:
    """Sizes of a search. The paper's is 16 members and 200 epochs in intervals of 3, on 4,000 images."""

    population: Annotated[int, at_least(4)] = 8
    """Number of classifiers; a quarter of them is replaced after each interval."""
    intervals: Annotated[int, at_least(1)] = 12
    """Number of intervals, which is the number of policies in the schedule."""
    epochs: Annotated[int, at_least(1)] = 2
    """Epochs in an interval."""
    seed: Annotated[int, SEED] = 1
    """Of everything that is drawn."""

    def __post_init__(self) -> None:
        check_ranges(self)


Genome = Tensor
"""``(slots, 2)`` int64 on the CPU: the tenths of each slot's probability, 0 to 10, and its level, 0 to 9."""


def policy_of(genome: Genome) -> Policy:
    """The policy that a member's numbers stand for."""
    pairs = genome.tolist()
    return tuple((name, tenths / 10, level) for name, (tenths, level) in zip(SLOTS, pairs, strict=True))


def explore(genome: Genome, generator: torch.Generator) -> Genome:
    """Changes a policy that was taken over (algorithm 2).

    Each number is drawn anew with probability 0.2; otherwise it is raised or lowered by 0 to 3 within its range.
    """
    choices = torch.tensor([_PROBABILITIES, LEVELS])
    draws = torch.rand(4, *genome.shape, generator=generator)
    anew = (draws[1] * choices).long()
    shift = (draws[2] * _SHIFTS).long() * torch.where(draws[3] < 0.5, -1, 1)
    shifted = torch.minimum((genome + shift).clamp_min(0), choices - 1)
    return torch.where(draws[0] < _REDRAWN, anew, shifted)


def successors(accuracies: Sequence[float], generator: torch.Generator) -> list[int]:
    """For each member, the one whose weights and policies it goes on with: itself, unless it is of the worst quarter.

    These take a random member of the best quarter. Of equal members the earlier one counts as better.
    """
    ranking = sorted(range(len(accuracies)), key=lambda member: -accuracies[member])
    quarter = len(accuracies) // 4
    parents = list(range(len(accuracies)))
    for loser in ranking[len(ranking) - quarter :]:
        parents[loser] = ranking[int(torch.randint(quarter, (), generator=generator))]
    return parents


@dataclass
class _Member:
    weights: dict[str, Tensor]
    genomes: list[Genome]
    """The policies that it and its ancestors have trained with, the current one last."""
    accuracy: float = 0.0


class PolicySearch:
    """A search that is saved after every interval of every member, and goes on from there.

    Args:
        encoder: the network of each classifier; left unchanged.
        images: ``(N, C, S, S)`` uint8 for training and for comparing the members, on any device.
        labels: ``(N,)``.
        classes: number of classes.
        size: side of the crops, in pixels.
        training: of one interval; its epochs are those of ``config``.
        config: sizes of the search.
        directory: the checkpoints are in its folder ``checkpoints``; an earlier search in it is continued.
        identity: what else makes it this search, such as its data: JSON values.

    Raises:
        UserError: the directory holds a search with other settings, or the images are too few.
    """

    def __init__(
        self,
        encoder: Encoder,
        images: Tensor,
        labels: Tensor,
        *,
        classes: int,
        size: int,
        training: SupervisedConfig,
        config: SearchConfig,
        directory: Path,
        identity: dict[str, Any],
    ) -> None:
        self.config, self._training, self._size, self._directory = config, training, size, directory
        held_out = torch.zeros(len(labels), dtype=torch.bool)
        held_out[balanced_subset(labels.cpu(), _HELD_OUT, seed=0)] = True
        self._images, self._test = images[~held_out], center_crop(images[held_out], size)
        self._targets, self._test_labels = labels[~held_out], labels[held_out]
        if len(self._images) < 2:
            raise UserError(f"the search needs at least 2 images to train on, got {len(self._images)}")
        self._network = new_classifier(encoder, center_crop(images, size), classes=classes)
        self._identity = {"search": asdict(config), "training": asdict(training), **identity}
        nothing = torch.zeros(len(SLOTS), 2, dtype=torch.int64)  # the paper begins without augmentation
        self._members = [_Member(_copied(self._network), [nothing]) for _ in range(config.population)]
        self.done = 0
        """Intervals that members have trained, over all members."""
        self._load()

    @property
    def total(self) -> int:
        """Intervals of all members together."""
        return self.config.population * self.config.intervals

    @property
    def accuracy(self) -> float:
        """The best member's, on the images held out, in [0, 1]."""
        return max(member.accuracy for member in self._members)

    def run(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Trains until the last interval or until ``stop()``; returns whether the search is complete."""
        steps = self._training.epochs * -(-len(self._images) // self._training.batch_size)
        with tqdm(total=self.total * steps, initial=self.done * steps, desc="search", unit="step", disable=None) as bar:
            while self.done < self.total:
                if stop():
                    return False
                interval, number = divmod(self.done, self.config.population)
                if number == 0 and interval:
                    self._replace_the_worst(interval)
                self._train(self._members[number], interval, number, bar)
                self.done += 1
                self._save()
                bar.set_postfix(interval=f"{interval + 1}/{self.config.intervals}", best=f"{self.accuracy:.1%}")
        return True

    def schedule(self) -> Schedule:
        """The policies that led to the best member."""
        best = max(self._members, key=lambda member: member.accuracy)  # the first of equal ones
        return Schedule(tuple(Phase(self.config.epochs, policy_of(genome)) for genome in best.genomes))

    def _replace_the_worst(self, interval: int) -> None:
        generator = torch.Generator().manual_seed(derived_seed(self.config.seed, "explored policies", interval))
        parents = successors([member.accuracy for member in self._members], generator)
        members = []
        for number, parent in enumerate(self._members[parent] for parent in parents):
            genome = parent.genomes[-1]
            if parents[number] != number:
                genome = explore(genome, generator)
            members.append(_Member(parent.weights, [*parent.genomes, genome], parent.accuracy))
        self._members = members

    def _train(self, member: _Member, interval: int, number: int, bar: tqdm[Any]) -> None:
        network, device = self._network, next(self._network.parameters()).device
        network.load_state_dict(member.weights)
        generator = torch.Generator(device)
        place = self.config.population * interval + number
        generator.manual_seed(derived_seed(self.config.seed, "search for policies", place))
        policy, targets = policy_of(member.genomes[-1]), self._targets.to(device)

        def loss(views: Tensor, chosen: Tensor) -> Tensor:
            views = population_augment(views, generator, policy=policy)
            return F.cross_entropy(network(views), targets[chosen])

        train_classifier(network, self._images, self._size, loss, self._training, generator, "the search", bar=bar)
        member.weights = _copied(network)
        member.accuracy = float(top1_accuracy(network, self._test, self._test_labels))

    def _save(self) -> None:
        members = [asdict(member) for member in self._members]
        state = {"identity": self._identity, "done": self.done, "members": members}
        checkpoint.save(self._directory / "checkpoints", self.done, state)

    def _load(self) -> None:
        found = checkpoint.load_newest(self._directory / "checkpoints")
        if found is None:
            return
        state = found[1]
        if (earlier := state.get("identity")) != self._identity:
            raise UserError(
                f"{self._directory} holds a search with other settings{_difference(earlier, self._identity)}: choose "
                "another --out directory, or remove it"
            )
        self._members = [_Member(**member) for member in state["members"]]
        self.done = state["done"]


def _copied(network: Classifier) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def _difference(earlier: Any, now: dict[str, Any]) -> str:
    if not isinstance(earlier, dict):
        return ""
    for name, value in now.items():
        before = earlier.get(name)
        if isinstance(value, dict) and isinstance(before, dict) and value != before:
            return _difference(before, value)
        if before != value:
            return f", {name} {before}"
    return ""
