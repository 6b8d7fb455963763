"""Checkpoints: states survive a round trip, and only the newest files are kept."""

from __future__ import annotations

import io
import math
import random
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from curl_rl.runs import checkpoint
from helpers.checkpoints import assert_same, assert_the_one_before_is_used, by_hand, names, segment


def random_nest(source: random.Random, depth: int) -> Any:
    leaves = [
        lambda: source.choice([0, -1, 2**31, 2**63, -(2**127), True, False, None, "", "größer", "a/b\n"]),
        lambda: source.choice([0.0, -0.0, 1e-310, math.inf, math.nan, 0.1]),
        lambda: torch.tensor([0.0, -0.0, math.nan, 1.5]).to(source.choice([torch.float32, torch.bfloat16])),
        lambda: torch.randint(0, 2, (2, 0, 3) if source.random() < 0.3 else (2, 3)).to(
            source.choice([torch.uint8, torch.bool, torch.int64])
        ),
        lambda: torch.arange(12.0).reshape(3, 4).t(),
        lambda: torch.tensor(source.random(), dtype=torch.float64),
    ]
    kind = source.randrange(10) if depth else 9
    if kind > 5:
        return source.choice(leaves)()
    items = [random_nest(source, depth - 1) for _ in range(source.randrange(4))]
    if kind < 2:
        return {source.choice([f"k{i}", i]): item for i, item in enumerate(items)}
    return (list, tuple)[kind % 2](items)


def test_a_state_survives_a_round_trip(tmp_path: Path) -> None:
    source = random.Random(0)
    for frames in range(50):
        state = {"nest": [random_nest(source, 4) for _ in range(3)]}
        path = checkpoint.save(tmp_path, frames, state)
        loaded = checkpoint.load_newest(tmp_path)
        assert loaded is not None
        assert loaded[0] == path
        assert_same(loaded[1], state)


def test_networks_and_optimizers_survive_a_round_trip(tmp_path: Path) -> None:
    def make() -> tuple[nn.Module, torch.optim.Optimizer]:
        network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        return network, torch.optim.Adam(network.parameters(), lr=0.1)

    network, optimizer = make()
    network(torch.randn(5, 3)).square().sum().backward()
    optimizer.step()
    state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "step": 7}
    checkpoint.save(tmp_path, 1, state)
    loaded = checkpoint.load_newest(tmp_path)
    assert loaded is not None
    assert_same(loaded[1], state)
    # Modules read their own versions from here when they load.
    assert vars(loaded[1]["network"]) == vars(network.state_dict())

    other, other_optimizer = make()
    other.load_state_dict(loaded[1]["network"])
    other_optimizer.load_state_dict(loaded[1]["optimizer"])
    images = torch.randn(5, 3)
    for module, adam in ((network, optimizer), (other, other_optimizer)):
        adam.zero_grad()
        module(images).square().sum().backward()
        adam.step()
    assert_same(other.state_dict(), network.state_dict())


def test_a_parameter_is_loaded_as_a_tensor(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, {"w": nn.Parameter(torch.ones(2))})
    loaded = checkpoint.load_newest(tmp_path)
    assert loaded is not None
    assert_same(loaded[1], {"w": torch.ones(2)})


def test_a_slice_is_saved_without_the_rest_of_its_tensor(tmp_path: Path) -> None:
    large = torch.randn(1_000_000)
    path = checkpoint.save(tmp_path, 1, {"slice": large[10:20]})
    assert path.stat().st_size < 10_000
    loaded = checkpoint.load_newest(tmp_path)
    assert loaded is not None
    assert torch.equal(loaded[1]["slice"], large[10:20])


class Custom:
    pass


@pytest.mark.parametrize(
    ("state", "place"),
    [
        ({"x": {"y": Custom()}}, 'state["x"]["y"] is a Custom'),
        ({"x": [1, (2, np.float64(3.0))]}, 'state["x"][1][1] is a float64'),
        ({"a": np.zeros(2)}, 'state["a"] is a ndarray'),
        ({"a": {1: {2}}}, 'state["a"][1] is a set'),
        ({"a": b"bytes"}, 'state["a"] is a bytes'),
        ({"a": torch.Size([1])}, 'state["a"] is a Size'),
        ({"a": torch.float32}, 'state["a"] is a dtype'),
        ({"a": torch.eye(2).to_sparse()}, 'state["a"] is a Tensor'),
        ({"a": {(1, 2): 3}}, 'state["a"] has the key (1, 2), a tuple'),
        ({"a": {True: 3}}, 'state["a"] has the key True, a bool'),
        ([1], "state must be a dict, got a list"),
    ],
)
def test_a_state_that_could_not_be_loaded_is_not_saved(tmp_path: Path, state: Any, place: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(place)) as caught:
        checkpoint.save(tmp_path, 1, state)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == []


def test_extra_attributes_of_a_tensor_or_a_dict_are_not_saved(tmp_path: Path) -> None:
    tensor = torch.ones(2)
    tensor.owner = Custom()  # type: ignore[attr-defined]
    mapping = OrderedDict(a=1)
    mapping.owner = Custom()  # type: ignore[attr-defined]
    checkpoint.save(tmp_path, 1, {"tensor": tensor, "mapping": mapping})
    loaded = checkpoint.load_newest(tmp_path)
    assert loaded is not None
    assert_same(loaded[1], {"tensor": torch.ones(2), "mapping": OrderedDict(a=1)})


def test_the_file_has_the_documented_layout(tmp_path: Path) -> None:
    segment(tmp_path, "s1")
    path = checkpoint.save(tmp_path, 12, {"a": torch.arange(3), "b": 1}, attachments=["s1"])
    assert path.name == "0000000012.ckpt"
    content = path.read_bytes()
    payload = content[8 + 4 + 4 + 8 + 32 + 32 + len('["s1"]') :]
    assert content == by_hand(payload, ["s1"])
    assert_same(torch.load(io.BytesIO(payload), weights_only=True), {"a": torch.arange(3), "b": 1})


# ---- retention


def test_the_newest_are_kept_by_number(tmp_path: Path) -> None:
    for frames in (5, 90, 1000, 20_000):
        checkpoint.save(tmp_path, frames, {}, keep=3)
    assert names(tmp_path) == ["0000000090.ckpt", "0000001000.ckpt", "0000020000.ckpt"]
    checkpoint.save(tmp_path, 20_001, {}, keep=1)
    assert names(tmp_path) == ["0000020001.ckpt"]


def test_the_same_frames_may_be_saved_again(two: Path) -> None:
    checkpoint.save(two, 10, {"frames": "again"})
    assert checkpoint.load_newest(two) == (two / "0000000010.ckpt", {"frames": "again"})
    assert names(two) == ["0000000005.ckpt", "0000000010.ckpt"]


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [
        (9, {}, r"^frames=9: .* already holds the later 0000000010\.ckpt"),
        (-1, {}, "^frames must be from 0 to 9999999999, got -1"),
        (10**10, {}, "^frames must be from 0 to 9999999999, got 10000000000"),
        (11, {"keep": 0}, "^keep must be at least 1 checkpoint, got 0"),
        (11, {"attachments": ["absent"]}, "^attachments: 'absent' is not a file in "),
        (11, {"attachments": ["../0000000005.ckpt"]}, r"^attachments: '\.\./0000000005\.ckpt' is not a file in "),
    ],
)
def test_mistakes_are_refused_and_change_nothing(two: Path, frames: int, options: Any, message: str) -> None:
    (two / checkpoint.SEGMENTS).mkdir()
    with pytest.raises(ValueError, match=message) as caught:
        checkpoint.save(two, frames, {}, **options)
    assert "\n" not in str(caught.value)
    assert names(two) == ["0000000005.ckpt", "0000000010.ckpt"]


def test_attachments_are_kept_as_long_as_a_checkpoint_lists_them(tmp_path: Path) -> None:
    segments = tmp_path / checkpoint.SEGMENTS
    needed = {1: ["a"], 2: ["a", "b"], 3: ["b", "c"], 4: ["d"], 5: []}
    expected = {1: ["a"], 2: ["a", "b"], 3: ["a", "b", "c"], 4: ["b", "c", "d"], 5: ["d"]}
    for frames, attachments in needed.items():
        for name in attachments:
            segment(tmp_path, name)
        segment(tmp_path, "of-a-killed-process.partial")
        checkpoint.save(tmp_path, frames, {}, attachments=attachments)
        assert names(segments) == expected[frames]


def test_a_checkpoint_without_its_attachment_is_skipped(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, {}, attachments=[segment(tmp_path, "a")])
    checkpoint.save(tmp_path, 2, {}, attachments=["a", segment(tmp_path, "b")])
    (tmp_path / checkpoint.SEGMENTS / "b").unlink()
    with pytest.warns(RuntimeWarning, match=r"0000000002\.ckpt cannot be used \(its file segments/b is missing\)"):
        loaded = checkpoint.load_newest(tmp_path)
    assert loaded is not None
    assert loaded[0].name == "0000000001.ckpt"


@pytest.mark.parametrize("damage", ["empty", "truncated", "header", "attachment"])
def test_a_damaged_checkpoint_does_not_count_towards_keep(tmp_path: Path, damage: str) -> None:
    checkpoint.save(tmp_path, 1, {}, attachments=[segment(tmp_path, "a")])
    path = checkpoint.save(tmp_path, 2, {}, attachments=[segment(tmp_path, "b")])
    content = path.read_bytes()
    if damage == "attachment":
        (tmp_path / checkpoint.SEGMENTS / "b").unlink()
    else:
        header = content[:60] + bytes([content[60] ^ 1]) + content[61:]
        path.write_bytes({"empty": b"", "truncated": content[:-1], "header": header}[damage])
    checkpoint.save(tmp_path, 3, {})
    assert names(tmp_path) == ["0000000001.ckpt", "0000000002.ckpt", "0000000003.ckpt"]
    assert "a" in names(tmp_path / checkpoint.SEGMENTS)
    checkpoint.save(tmp_path, 4, {})
    assert names(tmp_path) == ["0000000003.ckpt", "0000000004.ckpt"]


def test_a_checkpoint_set_aside_does_not_count_towards_keep(two: Path) -> None:
    (two / "0000000010.ckpt").write_bytes(b"")
    assert_the_one_before_is_used(two)
    checkpoint.save(two, 7, {})
    assert names(two) == ["0000000005.ckpt", "0000000007.ckpt", "0000000010.ckpt.damaged"]
