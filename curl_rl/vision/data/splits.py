"""Tells a folder of classes from one with splits by the names of its folders, and refuses what could be either.

Only visible folders with an image in them count. Names are compared without regard to case, spaces, punctuation and a
final "set": ``Test_Set`` is ``test``.

1. One training split (:data:`TRAINING`) and one held-out split: those two. Of held-out splits, :data:`TEST` takes
   precedence over :data:`VALIDATION`. Other folders are not used.
2. One training split alone: that one, without test images.
3. Neither: every folder is a class. Without folders the images have no classes.

A class may be called train: without a held-out split, a folder of that name next to others is a class if images lie
directly in it. Anything else is refused: a held-out split without a training split, two of one kind, a training split
of folders next to other folders, splits inside a class, and names that differ only in a split's name (``train2017``,
``val2017``). The remedy is always a folder with ``train``, and ``test`` if there are test images, which may be links:
inside a split every folder is a class, whatever its name.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Literal, NamedTuple

from curl_rl.runs.errors import UserError
from curl_rl.vision.data.listing import LeftOut, folders_in, images_below

TRAINING = ("train", "training")
"""Names of the training split."""
TEST = ("test", "testing")
"""Names of the test split."""
VALIDATION = ("val", "valid", "validation", "dev", "holdout", "heldout", "eval", "evaluation")
"""Names of the split that is tested on if there is no test split."""

_Role = Literal["training", "test", "validation"]
_ROLES: dict[str, _Role] = {
    **dict.fromkeys(TRAINING, "training"),
    **dict.fromkeys(TEST, "test"),
    **dict.fromkeys(VALIDATION, "validation"),
}
_WORDS = "|".join(sorted(_ROLES, key=len, reverse=True))
# A split's name at either end of a longer name, as a word of its own: train2017, trainA, seg_train; not trainer.
_LONGER = re.compile(rf"^(?P<first>(?i:{_WORDS}))(?=[^a-z])|(?<![^\W\d_])(?P<last>(?i:{_WORDS}))$")


class Part(NamedTuple):
    """The folder of one split."""

    folder: str
    classes: tuple[str, ...]
    """Names of the folders of classes of all splits, so that labels mean the same in each; empty if it has none."""


class Splits(NamedTuple):
    """The splits of a folder of images."""

    train: Part
    test: Part | None
    found: str
    """What was taken for what, in one line."""
    left_out: LeftOut
    """What the folders without images hold."""


def find_splits(folder: str) -> Splits:
    """Finds the splits and the classes of a folder of images, by the rule at the top of this file.

    Raises:
        UserError: the layout is ambiguous, or a folder cannot be read.
    """
    left_out = LeftOut()
    filled, empty = _filled(folder, left_out)
    named: dict[_Role | None, list[str]] = defaultdict(list)
    for name in filled:
        named[_role(name)].append(name)
    training, held_out, others = named["training"], named["test"] or named["validation"], named[None]
    _check(folder, training, held_out, others)
    if not training or (not held_out and others):
        found = f"{folder}: {_counted(filled, empty)}, no test images"
        return Splits(Part(folder, filled), None, found, left_out)

    seen = {}
    # Classes of a validation split next to a test split count as well: runs have been saved with them.
    for name in training + named["test"] + named["validation"]:
        part = os.path.join(folder, name)
        seen[part], without = _filled(part, left_out)
        empty = without if name == training[0] else empty
    classes = tuple(sorted({name for names in seen.values() for name in names}))
    parts = [Part(part, classes if names else ()) for part, names in seen.items()]
    unused = [name for name in filled if name not in (*training, *held_out)]
    unused += [os.path.basename(path) for path in images_below(folder, nested=False)]
    found = f"{folder}: {training[0]} for training, {held_out[0] if held_out else 'nothing'} for testing"
    found += f", {few(unused)} unused" if unused else ""
    return Splits(parts[0], parts[1] if held_out else None, f"{found}; {_counted(classes, empty)}", left_out)


def _check(folder: str, training: list[str], held_out: list[str], others: list[str]) -> None:
    """Refuses a layout whose folders, sorted by their roles, are ambiguous."""
    as_classes = f"into a new folder {os.path.join(folder, 'train')}"
    if held_out and not training:
        beside = f" next to {few(others)}" if others else ""
        raise UserError(
            f"{folder} has {few(held_out)}{beside} but no training split: rename the folder of the training images "
            f"train, or, if {held_out[0]} is a class, move all classes {as_classes}"
        )
    for names in (training, held_out):
        if len(names) > 1:
            raise UserError(
                f"{folder} has {' and '.join(names)}, names of the same split: rename or remove all but one"
            )
    if held_out:
        return
    if training and others and next(images_below(os.path.join(folder, training[0]), nested=False), None) is None:
        raise UserError(
            f"{folder} has {training[0]}, which holds folders of images, next to {few(others)}: move these away if "
            f"{training[0]} is the training split, or, if it is a class, move all classes {as_classes}"
        )
    alike: dict[str, dict[bool, str]] = defaultdict(dict)
    for name in others:
        if match := _LONGER.search(name):
            rest = f"{name[: match.start()]}*{name[match.end() :]}".casefold()
            alike[rest][_role(match[0]) == "training"] = name
    for pair in alike.values():
        if len(pair) == 2:
            raise UserError(
                f"{folder} has {pair[True]} and {pair[False]}, which may be splits or classes: rename them train and "
                f"test, or, if they are classes, move all classes {as_classes}"
            )


def refuse_splits_in_classes(folder: str, paths: Iterable[str]) -> None:
    """Refuses images of a training and a held-out split that would be mixed in one class.

    Args:
        folder: the folder of the classes.
        paths: paths of images below it.

    Raises:
        UserError: a folder below a class holds both splits.
    """
    inner: dict[str, set[str]] = defaultdict(set)
    for parent in {os.path.dirname(path) for path in paths}:
        while len(parent) > len(folder):
            parent, name = os.path.split(parent)
            if name in inner[parent]:
                break
            inner[parent].add(name)
    inner.pop(folder, None)  # the classes themselves
    for parent, names in sorted(inner.items()):
        roles = {_role(name): name for name in sorted(names, reverse=True)}
        if "training" in roles and (held_out := roles.get("test") or roles.get("validation")):
            raise UserError(
                f"{parent} holds {roles['training']} and {held_out}, which would be mixed in one class: name this "
                f"folder itself if they are the splits, or sort the images into "
                f"{os.path.join(folder, 'train', '<class>')} and {os.path.join(folder, 'test', '<class>')}"
            )


def few(names: Iterable[str]) -> str:
    """The first five names, and the number of others."""
    listed = list(names)
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5:,} more" if len(listed) > 5 else "")


def _role(name: str) -> _Role | None:
    return _ROLES.get(re.sub(r"[\W_]+", "", name.lower()).removesuffix("set"))


def _filled(directory: str, left_out: LeftOut) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the folders in a directory that hold an image at any depth, and of those that hold none.

    Adds what the latter hold to ``left_out``.
    """
    filled, empty = [], []
    for name in folders_in(directory):
        here = LeftOut()
        if next(images_below(os.path.join(directory, name), here), None) is None:
            empty.append(name)
            left_out.add(here)
        else:
            filled.append(name)
    return tuple(filled), tuple(empty)


def _counted(classes: tuple[str, ...], empty: tuple[str, ...]) -> str:
    count = f"{len(classes):,} class{'es' if len(classes) > 1 else ''} ({few(classes)})" if classes else "no classes"
    return count + (f", no images in {few(empty)}" if empty else "")
