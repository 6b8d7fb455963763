"""Files of tasks, phases of a run, and exemplars."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from curl_rl.runs.errors import UserError
from curl_rl.vision.detection.exemplars import choose
from curl_rl.vision.detection.tasks import Tasks, phases, read_tasks

TASKS = Tasks((("cat", "dog"), ("car",)), ("cup",))


def test_a_file_of_tasks(tmp_path: Path) -> None:
    path = tmp_path / "tasks.yaml"
    path.write_text("tasks:\n- [cat, dog]\n- [car]\nunknown: [cup]\n")
    found = read_tasks(path)
    assert found == TASKS
    assert found.classes == ("cat", "dog", "car", "cup")
    path.write_text("unknown: ['cup']\ntasks: [['cat', dog], ['car']]")
    assert read_tasks(path).digest == found.digest


def test_names_are_read_as_they_are_spelled(tmp_path: Path) -> None:
    path = tmp_path / "tasks.yaml"
    path.write_text("tasks: [[0, 007], [yes, no, null, 1.5], [my dog , 2024-01-01]]\nunknown:\n")
    found = read_tasks(path)
    assert found == Tasks((("0", "007"), ("yes", "no", "null", "1.5"), ("my dog", "2024-01-01")))


def test_labels_are_numbered_task_by_task() -> None:
    assert [TASKS.known(task) for task in (0, 1)] == [2, 3]
    assert [TASKS.current(task) for task in (0, 1)] == [range(2), range(2, 3)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tasks: []", "tasks must be a list of lists"),
        ("task: [[a, b]]", "unknown setting task; did you mean tasks?"),
        ("tasks: [[a, b], c]", "task 2 must be a list"),
        ("tasks: [[a, b], []]", "task 2 must be a list"),
        ("tasks: [[a, b], [[c]]]", "task 2 must be a list of one or more classes, such as [cat, dog], got [['c']]"),
        ("tasks: [[a, b], ['']]", "task 2 must be a list"),
        ("", "must hold settings by name, such as `tasks: [[cat, dog], [car]]`"),
        ("- [a, b]", "must hold settings by name, such as `tasks: [[cat, dog], [car]]`"),
        ("tasks: [[a, b], [b]]", "a class must be in one task only, got b twice"),
        ("tasks: [[a, b]]\nunknown: [a]", "a class must be in one task only, got a twice"),
        ("tasks: [[a]]", "task 1 must have at least 2 classes, got only a"),
        ("tasks: [[a, unknown]]", "a class may not be called unknown"),
        ("tasks: [[a, b]]\nunknown: cup", "unknown must be a list"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "tasks.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as refused:
        read_tasks(path)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_exemplars_are_repeated_after_every_task_but_the_first() -> None:
    found = phases(TASKS, steps=100, replay_steps=30)
    assert [(phase.name, phase.first, phase.end) for phase in found] == [
        ("task1", 0, 100),
        ("task2", 100, 200),
        ("task2-replay", 200, 230),
    ]
    assert [phase.name for phase in phases(TASKS, 100, 0)] == ["task1", "task2"]


def test_exemplars_hold_so_many_objects_of_each_class() -> None:
    labels = torch.tensor([[0, -1], [0, 0], [0, 1], [2, 2], [1, 3], [1, -1]])
    # Scene 10 has the first 0, 11 two more at once, 12 the first 1, 14 the second; 2 and 3 are not of the task.
    assert choose(labels, range(10, 16), [0, 1], 2) == [10, 11, 12, 14]
    assert choose(labels, range(10, 16), [0, 1], 0) == []
    assert choose(labels, range(10, 16), [0, 1], 99) == [10, 11, 12, 14, 15]
