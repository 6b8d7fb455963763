"""Our losses against those of PyTorch Metric Learning and lightly, where both compute the same number."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.timing import Row, compared, side_by_side
from curl_rl import losses
from curl_rl.objectives.banks import Ring

QUEUE = 65536
PROTOTYPES = 3000
_TEMPERATURE = 0.2
_MARGIN = 0.5


@dataclass(frozen=True)
class Inputs:
    """Embeddings of two views of each sample, and what the losses need besides."""

    views: Tensor
    """``(2B, D)``, the first views first; it requires a gradient."""
    labels: Tensor
    """``(2B,)`` classes, several samples to each."""
    samples: Tensor
    """``(2B,)``, the index of each view's sample."""
    bank: Tensor
    """``(Q, D)`` past embeddings of length 1."""
    prototypes: Tensor
    """``(K, D)`` of length 1."""

    @classmethod
    def draw(cls, device: torch.device, batch: int, dim: int, queue: int, prototypes: int) -> Inputs:
        """Random inputs; the views of a sample are alike."""
        generator = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator).to(device)

        views = normal(batch, dim).repeat(2, 1) + 0.3 * normal(2 * batch, dim)
        labels = torch.arange(batch, device=device) % max(2, batch // 25)
        return cls(
            (2 * views / dim**0.5).requires_grad_(),
            labels.repeat(2),
            torch.arange(batch, device=device).repeat(2),
            F.normalize(normal(queue, dim)),
            F.normalize(normal(prototypes, dim)),
        )


Loss = Callable[[Inputs], Tensor]


@dataclass(frozen=True)
class Comparison:
    """A loss of ours, and the same one of a library."""

    name: str
    library: str
    ours: Loss
    theirs: Loss
    after_step: Callable[[Inputs], object] | None = None
    """What ours does after the gradient is known and theirs within the loss: storing the batch in a bank."""

    def work(self, inputs: Inputs) -> dict[str, Callable[[], tuple[Tensor, Tensor]]]:
        """A step of the library (``plain``) and of ours: each returns the loss and its gradient by the embeddings."""

        def step(loss: Loss, after: Callable[[Inputs], object] | None) -> tuple[Tensor, Tensor]:
            value = loss(inputs)
            (gradient,) = torch.autograd.grad(value, inputs.views)
            if after is not None:
                after(inputs)
            return value.detach(), gradient

        return {"plain": lambda: step(self.theirs, None), "ours": lambda: step(self.ours, self.after_step)}


def measure(device: torch.device, batch: int, rounds: int, *, dim: int = 128) -> list[Row]:
    """A row per comparison: forward and backward to the embeddings, with the library's loss as the plain one."""
    inputs = Inputs.draw(device, batch, dim, QUEUE, PROTOTYPES)
    rows = []
    for comparison in comparisons(inputs):
        name = f"{comparison.name}, batch {batch}, {comparison.library} as plain"
        cases = comparison.work(inputs)
        seconds = side_by_side(cases, rounds=rounds, warm_up=2, device=device, description=comparison.name)
        rows.append(compared(name, seconds["plain"], seconds["ours"]))
    return rows


def comparisons(inputs: Inputs) -> list[Comparison]:
    """All comparisons with the libraries that are installed; each may keep a memory of the size of ``inputs.bank``."""
    found: list[Comparison] = []
    for library, module, compare in (
        ("PyTorch Metric Learning", "pytorch_metric_learning", with_pytorch_metric_learning),
        ("lightly", "lightly", with_lightly),
    ):
        if importlib.util.find_spec(module) is None:
            print(f"{library} is not installed: our losses are not compared with its")
            continue
        found += compare(inputs, library)
    return found


def with_pytorch_metric_learning(inputs: Inputs, library: str) -> list[Comparison]:
    """Comparisons with PyTorch Metric Learning, whose similarities are of normalized embeddings by default."""
    from pytorch_metric_learning import distances, miners, reducers
    from pytorch_metric_learning import losses as theirs

    nt_xent, supcon = theirs.NTXentLoss(temperature=_TEMPERATURE), theirs.SupConLoss(temperature=_TEMPERATURE)
    cosine, mean = distances.CosineSimilarity(), reducers.MeanReducer()
    triplet = theirs.TripletMarginLoss(margin=_MARGIN, distance=cosine, reducer=mean)
    # Each view has one positive, which is its hardest.
    semi_hard = miners.BatchEasyHardMiner(pos_strategy="hard", neg_strategy="semihard", distance=cosine)

    def our_triplet(i: Inputs) -> Tensor:
        return losses.semi_hard_triplet(losses.two_view_scores(*F.normalize(i.views).chunk(2)), _MARGIN)

    def their_triplet(i: Inputs) -> Tensor:
        return triplet(i.views, i.samples, semi_hard(i.views, i.samples))

    return [
        # Its NT-Xent compares each positive pair with all negative pairs of the batch; its SupCon, with each sample as
        # a class, computes the same number much faster.
        Comparison("NT-Xent", library, _nt_xent, lambda i: nt_xent(i.views, i.samples)),
        Comparison("NT-Xent by SupConLoss", library, _nt_xent, lambda i: supcon(i.views, i.samples)),
        Comparison("semi-hard triplet, cosines", library, our_triplet, their_triplet),
        *_of_classes(library),
    ]


def _of_classes(library: str) -> list[Comparison]:
    """Comparisons of metric learning with PyTorch Metric Learning: of classes, except for N-pair, of samples."""
    from pytorch_metric_learning import distances, miners, reducers
    from pytorch_metric_learning import losses as theirs

    supcon = theirs.SupConLoss(temperature=_TEMPERATURE)
    squared: Any = {"distance": distances.LpDistance(p=2, power=2), "reducer": reducers.MeanReducer()}
    pairs = theirs.ContrastiveLoss(pos_margin=0, neg_margin=1.0, **squared)
    triplets, hard = (
        theirs.TripletMarginLoss(margin=_MARGIN, **squared),
        miners.BatchHardMiner(distance=squared["distance"]),
    )
    n_pairs = theirs.NPairsLoss(distance=distances.DotProductSimilarity(normalize_embeddings=False))

    def distance(i: Inputs) -> Tensor:
        return losses.squared_distances(F.normalize(i.views))

    def our_supcon(i: Inputs) -> Tensor:
        cosines = F.normalize(i.views)
        return losses.supervised_nt_xent(cosines @ cosines.T, i.labels, _TEMPERATURE)

    def our_triplets(mining: losses.Mining) -> Loss:
        return lambda i: losses.triplet(distance(i), i.labels, _MARGIN, mining).loss

    def our_n_pairs(i: Inputs) -> Tensor:
        anchors, keys = i.views.chunk(2)
        return losses.n_pair(anchors @ keys.T, None)

    def their_n_pairs(i: Inputs) -> Tensor:
        # Otherwise it draws which of the two views is the anchor.
        anchors, keys = torch.arange(len(i.views), device=i.views.device).chunk(2)
        return n_pairs(i.views, i.samples, (anchors, keys, anchors[:0], keys[:0]))

    return [
        Comparison("SupCon", library, our_supcon, lambda i: supcon(i.views, i.labels)),
        Comparison(
            "pair margin",
            library,
            lambda i: losses.pair_margin(distance(i), i.labels, 1.0).loss,
            lambda i: pairs(i.views, i.labels),
        ),
        Comparison("triplet, all", library, our_triplets("all"), lambda i: triplets(i.views, i.labels)),
        Comparison(
            "triplet, hard",
            library,
            our_triplets("hard"),
            lambda i: triplets(i.views, i.labels, hard(i.views, i.labels)),
        ),
        Comparison("N-pair", library, our_n_pairs, their_n_pairs),
    ]


def with_lightly(inputs: Inputs, library: str) -> list[Comparison]:
    """Comparisons with lightly."""
    from lightly import loss as theirs

    device = inputs.views.device
    nt_xent, cosine, swav = theirs.NTXentLoss(_TEMPERATURE), theirs.NegativeCosineSimilarity(), theirs.SwaVLoss()
    barlow = theirs.BarlowTwinsLoss(lambda_param=5e-3)
    queued = theirs.NTXentLoss(_TEMPERATURE, memory_bank_size=tuple(inputs.bank.shape)).to(device)
    queued.memory_bank.bank = inputs.bank.clone()
    ring = _full_ring(inputs)

    def our_queue(i: Inputs) -> Tensor:
        query = F.normalize(i.views.chunk(2)[0])
        return losses.nt_xent(losses.bank_scores(query, _keys(i), ring.embeddings, ring.valid), _TEMPERATURE)

    def lightlys_queue(i: Inputs) -> Tensor:
        query, key = i.views.chunk(2)
        return queued(query, key.detach())

    def our_barlow(i: Inputs) -> Tensor:
        first, second = i.views.chunk(2)
        return losses.redundancy(losses.cross_correlation(first, second), 5e-3)

    def our_cosine(i: Inputs) -> Tensor:
        first, second = i.views.chunk(2)
        return losses.cross_prediction([first, second], [first.detach(), second.detach()])

    def lightlys_cosine(i: Inputs) -> Tensor:
        first, second = i.views.chunk(2)
        return (cosine(first, second.detach()) + cosine(second, first.detach())) / 2

    def our_swav(i: Inputs) -> Tensor:
        scores = dict(enumerate((F.normalize(i.views) @ i.prototypes.T).chunk(2)))
        codes = {view: losses.sinkhorn(own.detach(), 0.05, 3) for view, own in scores.items()}
        return losses.swapped_prediction(scores, codes, 0.1)

    def lightlys_swav(i: Inputs) -> Tensor:
        return swav(list((F.normalize(i.views) @ i.prototypes.T).chunk(2)), []).sum()

    queue = f"NT-Xent with a queue of {len(inputs.bank):,}"
    prototypes = f"{len(inputs.prototypes):,} prototypes"
    return [
        Comparison("NT-Xent", library, _nt_xent, lambda i: nt_xent(*i.views.chunk(2))),
        Comparison(queue, library, our_queue, lightlys_queue, lambda i: ring.push(_keys(i))),
        Comparison("Barlow Twins", library, our_barlow, lambda i: barlow(*i.views.chunk(2))),
        Comparison("negative cosine", library, our_cosine, lightlys_cosine),
        Comparison(f"SwAV, {prototypes}", library, our_swav, lightlys_swav),
    ]


def _nt_xent(inputs: Inputs) -> Tensor:
    return losses.nt_xent(losses.two_view_scores(*F.normalize(inputs.views).chunk(2)), _TEMPERATURE)


def _keys(inputs: Inputs) -> Tensor:
    return F.normalize(inputs.views.detach().chunk(2)[1])


def _full_ring(inputs: Inputs) -> Ring:
    ring = Ring(*inputs.bank.shape).to(inputs.bank.device)
    ring.push(inputs.bank)
    return ring
