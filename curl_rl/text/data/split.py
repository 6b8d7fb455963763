"""A fixed division into training and test parts that depends on names alone."""

from __future__ import annotations

from hashlib import sha256
from typing import Literal

Part = Literal["train", "test"]


def part_of(name: str, test_share: float = 0.1) -> Part:
    """The part that a concept belongs to: the same in every set that has it, in any order and on any machine.

    Args:
        name: name of the concept, such as an emoji's code points.
        test_share: expected share of the concepts for testing.
    """
    number = int.from_bytes(sha256(name.encode()).digest()[:8], "big")
    return "test" if number < test_share * 2**64 else "train"
