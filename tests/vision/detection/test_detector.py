"""The detector's parts on cases with known answers, and that its files hold all of it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from curl_rl.encoders import FeatureSpec
from curl_rl.objectives.open_world import OpenWorldClusters, OpenWorldConfig
from curl_rl.runs.errors import UserError
from curl_rl.vision.detection.box_head import BoxHead, HeadConfig
from curl_rl.vision.detection.boxes import decode, encode
from curl_rl.vision.detection.detector import Detector, DetectorConfig, Seen
from curl_rl.vision.detection.detector_file import load_detector, save_detector
from curl_rl.vision.detection.energy import EnergyTest
from curl_rl.vision.detection.proposals import ProposalConfig, ProposalNetwork, Proposals
from curl_rl.vision.detection.sampling import Truth
from curl_rl.vision.detection.unknowns import LabelingConfig
from curl_rl.vision.detection.weibull import Weibull

SMALL = DetectorConfig(width=0.125, head=HeadConfig(hidden=16))
TRUTH = Truth(torch.tensor([[[8.0, 8, 32, 32], [40, 36, 60, 60]]] * 2), torch.tensor([[0, 1], [1, -1]]))
IMAGES = torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def small(classes: int = 3) -> Detector:
    torch.manual_seed(0)
    return Detector(classes, SMALL)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_rows_without_an_object_teach_no_anchor() -> None:
    """The first anchor overlaps the object too little to be one, and fills the place of nothing."""
    torch.manual_seed(0)
    network = ProposalNetwork(4, 8, ProposalConfig(sizes=(16.0,), ratios=(1.0,)))
    maps = torch.randn(1, 4, 4, 4)
    anchors = network.anchors(maps)
    objectness, offsets = network(maps)
    one = Truth(torch.tensor([[[6.0, 6.0, 30.0, 30.0]]]), torch.tensor([[0]]))
    padded = Truth(torch.cat([one.boxes, torch.zeros(1, 3, 4)], 1), torch.tensor([[0, -1, -1, -1]]))
    nothing = Truth(torch.zeros(1, 0, 4), torch.zeros(1, 0, dtype=torch.int64))
    losses = [network.loss(objectness, offsets, anchors, truth, nothing, generator()) for truth in (one, padded)]
    assert torch.equal(losses[0][0], losses[1][0])
    assert torch.equal(losses[0][1], losses[1][1])


def test_anchors_by_hand() -> None:
    network = ProposalNetwork(4, 8, ProposalConfig(sizes=(16.0,), ratios=(1.0, 4.0)))
    anchors = network.anchors(torch.zeros(1, 4, 2, 3)).view(2, 3, 2, 4)
    assert anchors[0, 0].tolist() == [[-4, -4, 12, 12], [0, -12, 8, 20]]  # around (4, 4): 16 by 16, and 8 by 32
    assert anchors[1, 2, 0].tolist() == [12, 4, 28, 20]


def test_perfect_answers_are_proposed_and_cost_nothing() -> None:
    network = ProposalNetwork(4, 8, ProposalConfig(learned=400))
    anchors = network.anchors(torch.zeros(2, 4, 8, 8))
    # An anchor is certain if it overlaps an object by half, or is the best; its offsets lead to the object.
    from curl_rl.vision.detection.sampling import match

    found = match(anchors.expand(2, -1, -1), TRUTH)
    best = match(TRUTH.boxes, Truth(anchors.expand(2, -1, -1), torch.zeros(2, len(anchors), dtype=torch.int64)))
    certain = found.overlap >= 0.5
    for image in range(2):
        certain[image, best.row[image][TRUTH.present[image]]] = True
    objectness = torch.where(certain, 30.0, -30.0)
    offsets = encode(found.box, anchors.expand(2, -1, -1))
    nothing = Truth(TRUTH.boxes, torch.full((2, 2), -1))
    losses = network.loss(objectness, offsets, anchors, TRUTH, nothing, generator())
    assert all(loss.item() < 1e-6 for loss in losses)
    proposals = network.propose(objectness, offsets, anchors, (64, 64))
    for image, count in enumerate((2, 1)):
        likely = proposals.boxes[image][proposals.valid[image] & (proposals.objectness[image] > 0)]
        assert len(likely) == count
        wanted = TRUTH.boxes[image, :count]
        assert torch.cdist(likely, wanted).amin(0).max() < 1e-3


def test_what_may_be_an_unknown_object_is_not_taught_as_background() -> None:
    network = ProposalNetwork(4, 8, ProposalConfig(learned=400))
    anchors = network.anchors(torch.zeros(1, 4, 8, 8))
    truth = Truth(TRUTH.boxes[:1], torch.tensor([[0, -1]]))
    spared = Truth(TRUTH.boxes[:1, 1:], torch.tensor([[9]]))
    nothing = Truth(spared.boxes, torch.tensor([[-1]]))
    grads = []
    for one in (nothing, spared):
        objectness = torch.zeros(1, len(anchors), requires_grad=True)
        loss, _ = network.loss(objectness, torch.zeros(1, len(anchors), 4), anchors, truth, one, generator())
        grads.append(torch.autograd.grad(loss, objectness)[0][0])
    from curl_rl.vision.detection.boxes import overlap

    on_it = overlap(anchors, spared.boxes[0])[:, 0] >= 0.3
    assert on_it.any()
    assert (grads[0][on_it] != 0).any()
    assert (grads[1][on_it] == 0).all()


def test_invalid_and_suppressed_proposals_come_last() -> None:
    network = ProposalNetwork(4, 8, ProposalConfig(considered=50, kept=30))
    anchors = network.anchors(torch.zeros(1, 4, 8, 8))
    objectness = torch.randn(3, len(anchors), generator=generator())
    found = network.propose(objectness, torch.zeros(3, len(anchors), 4), anchors, (64, 64))
    assert found.boxes.shape == (3, 30, 4)
    assert (found.valid.int().diff(dim=1) <= 0).all()
    for image in range(3):
        scores = found.objectness[image][found.valid[image]]
        assert (scores.diff() <= 0).all()
    assert found.boxes.amin() >= 0
    assert found.boxes.amax() <= 64


def test_later_classes_are_impossible_and_unlearned() -> None:
    head = BoxHead(2, 4, HeadConfig(bins=2, hidden=8))
    regions = head(torch.randn(3, 5, 2, 2, 2), known=2)
    probabilities = regions.logits.softmax(-1)
    assert (probabilities[..., 2:4] == 0).all()
    assert (probabilities[..., [0, 1, 4, 5]] > 0).all()
    loss = torch.nn.functional.cross_entropy(regions.logits.flatten(0, 1), torch.zeros(15, dtype=torch.int64))
    loss.backward()
    assert head.classifier.weight.grad is not None
    assert (head.classifier.weight.grad[2:4] == 0).all()


def test_regions_are_labeled_by_their_overlap() -> None:
    head = BoxHead(2, 3, HeadConfig(learned=8, share=0.5))
    boxes = torch.tensor([[[9.0, 8, 33, 32], [30, 0, 50, 20], [0, 0, 20, 20], [0, 40, 20, 60]]])
    truth = Truth(torch.tensor([[[8.0, 8, 32, 32]]]), torch.tensor([[1]]))
    unknown = Truth(torch.tensor([[[0.0, 40, 20, 60]]]), torch.tensor([[head.unknown]]))
    valid = torch.tensor([[True, True, False, True]])
    found = head.sample(boxes, valid, truth, unknown, generator())
    rows = {
        tuple(box): label
        for box, label, w in zip(*(v[0].tolist() for v in found[:2]), found.weights[0], strict=True)
        if w
    }
    assert rows == {
        (9.0, 8.0, 33.0, 32.0): 1,
        (8.0, 8.0, 32.0, 32.0): 1,  # the object itself
        (30.0, 0.0, 50.0, 20.0): head.background,
        (0.0, 40.0, 20.0, 60.0): head.unknown,
    }
    # The place of what was labeled automatically is not learned.
    located = {tuple(box) for box, flag in zip(found.boxes[0].tolist(), found.located[0], strict=True) if flag}
    assert located == {(9.0, 8.0, 33.0, 32.0), (8.0, 8.0, 32.0, 32.0)}


def test_a_step_has_gradients_everywhere_and_no_label_of_other_tasks() -> None:
    detector = small()
    clusters = OpenWorldClusters(FeatureSpec(16, (16, 1, 1)), 4, OpenWorldConfig(burn_in=1, every=1))
    labeling = LabelingConfig(objectness=0.0)
    first = detector.losses(IMAGES, TRUTH, 2, generator(), labeling, clusters, 0.1)
    clusters.after_step(first.carry, torch.ones(()))  # gives prototypes
    found = detector.losses(IMAGES, TRUTH, 2, generator(), labeling, clusters, 0.1)
    assert found.loss.item() == pytest.approx(
        sum(
            (0.1 if name == "losses/clusters" else 1) * value.item()
            for name, value in found.metrics.items()
            if "losses/" in name
        ),
        rel=1e-5,
    )
    assert found.metrics["losses/clusters"] > 0
    found.loss.backward()
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert (parameter.grad != 0).any(), name
    assert clusters.store.pushed[:2].min() > 0
    assert clusters.store.pushed[2] == 0  # a class of a later task
    assert clusters.store.pushed[3] > 0  # unknown


def test_a_step_waits_for_the_device_in_suppression_only(no_host_sync: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = small()
    clusters = OpenWorldClusters(FeatureSpec(16, (16, 1, 1)), 4, OpenWorldConfig(burn_in=1, every=1))
    # Suppression asks after each round whether it has changed anything; here it takes all of them.
    monkeypatch.setattr(torch, "equal", lambda one, other: False)
    with no_host_sync():
        found = detector.losses(IMAGES, TRUTH, 2, generator(), LabelingConfig(objectness=0.0), clusters, 0.1)
        found.loss.backward()
        clusters.after_step(found.carry, torch.ones(()))


def test_without_objects_a_step_is_finite() -> None:
    found = small().losses(
        IMAGES, Truth(TRUTH.boxes, torch.full((2, 2), -1)), 2, generator(), LabelingConfig(per_image=0), None, 0.0
    )
    assert found.loss.isfinite()
    assert found.carry is None
    assert found.metrics["losses/boxes"].item() == found.metrics["losses/proposals"].item() == 0


def seen(detector: Detector, rows: list[tuple[list[float], list[float]]]) -> Seen:
    """Regions of one image, with the probabilities of classes 0 and 1, unknown and background."""
    boxes = torch.tensor([[box for box, _ in rows]])
    chances = torch.tensor([[[a, b, 0.0, u, g] for _, (a, b, u, g) in rows]])
    valid = torch.ones(1, len(rows), dtype=torch.bool)
    return Seen(Proposals(boxes, torch.zeros(1, len(rows)), valid), boxes, chances.log(), 2)


def test_decisions_by_hand() -> None:
    detector = small()
    rows: list[tuple[list[float], list[float]]] = [
        ([0.0, 0, 10, 10], [0.6, 0.1, 0.1, 0.2]),
        ([1.0, 0, 11, 10], [0.7, 0.1, 0.1, 0.1]),  # the same object, more certain
        ([1.0, 0, 11, 10], [0.1, 0.5, 0.1, 0.3]),  # another class there is left alone
        ([40.0, 0, 50, 10], [0.1, 0.1, 0.6, 0.2]),
        ([20.0, 20, 30, 30], [0.02, 0.01, 0.01, 0.96]),  # below the least score
    ]
    (found,) = detector.decide(seen(detector, rows), None)
    assert found.labels.tolist() == [0, detector.head.unknown, 1]
    assert torch.allclose(found.scores, torch.tensor([0.7, 0.6, 0.5]))
    assert found.boxes[0].tolist() == [1, 0, 11, 10]


def test_energy_turns_known_into_unknown() -> None:
    detector = small()
    # Probabilities whose logits of known classes have energies -log(0.8) = 0.22 and -log(0.2) = 1.6.
    rows: list[tuple[list[float], list[float]]] = [
        ([0.0, 0, 10, 10], [0.5, 0.3, 0.1, 0.1]),
        ([40.0, 0, 50, 10], [0.15, 0.05, 0.05, 0.75]),
    ]
    test = EnergyTest(Weibull(2, 0.5, 0.0), Weibull(2, 0.5, 1.2), 1.0)
    (found,) = detector.decide(seen(detector, rows), test)
    assert found.labels.tolist() == [0, detector.head.unknown]
    assert torch.allclose(found.scores, torch.tensor([0.5, 0.15]))


def test_regressed_boxes_undo_the_scales() -> None:
    head = BoxHead(2, 3, HeadConfig())
    region, box = torch.tensor([[0.0, 0, 20, 20]]), torch.tensor([[2.0, 1, 16, 25]])
    scaled = encode(box, region) * torch.tensor([10.0, 10, 5, 5])
    assert torch.allclose(head.located(scaled, region), box, atol=1e-4)
    assert torch.allclose(decode(encode(box, region), region), box, atol=1e-4)


def test_a_file_holds_all_of_a_detector(tmp_path: Path) -> None:
    detector = small().eval()
    test = EnergyTest(Weibull(2, 3, -8.5), Weibull(1.5, 2, -3), 1.5)
    save_detector(detector, tmp_path, ("cat", "dog"), test, 64, {"seed": 1})
    found = load_detector(tmp_path)
    assert (found.classes, found.test, found.size) == (("cat", "dog"), test, 64)
    assert found.detector.config == SMALL
    ours, theirs = detector.see(IMAGES, 2), found.detector.see(IMAGES, 2)
    assert torch.equal(ours.boxes, theirs.boxes)
    assert torch.equal(ours.logits, theirs.logits)


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("classes", []),
        ("classes", ["a", "b", "c", "d"]),
        ("energy", {"known": [1, 2]}),
        ("config", {}),
        ("size", 0),
        ("size", 10**6),
    ],
)
def test_a_damaged_description_is_refused_in_one_line(change: str, value: object, tmp_path: Path) -> None:
    from curl_rl.artifacts.network_file import as_safetensors, file_description

    detector = small()
    save_detector(detector, tmp_path, ("cat",), None, 64, {})
    description = json.loads((tmp_path / "detector.json").read_text()) | {change: value}
    whole = file_description(detector, description)
    (tmp_path / "detector.safetensors").write_bytes(as_safetensors(detector, whole))
    (tmp_path / "detector.json").unlink()
    with pytest.raises(UserError, match=r"^the detector in .* is damaged \([^\n]*\)$"):
        load_detector(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kept": 100, "considered": 50}, "detector.proposals.kept must be at most considered 50, got 100"),
        ({"sizes": ()}, "detector.proposals.sizes must be one or more positive numbers of pixels, got"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ProposalConfig(**settings)  # type: ignore[arg-type]


def test_uncertainty_of_a_new_detector() -> None:
    """Before any step every answer is about equally likely: the loss of the class is near its logarithm."""
    found = small().losses(IMAGES, TRUTH, 2, generator(), LabelingConfig(per_image=0), None, 0.0)
    assert found.metrics["losses/classes"].item() == pytest.approx(math.log(4), abs=0.05)
    assert found.metrics["losses/objectness"].item() == pytest.approx(math.log(2), abs=0.05)
