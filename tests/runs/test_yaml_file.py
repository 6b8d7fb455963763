"""Files of settings: complete, of a sensible size, and harmless."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from curl_rl.rl.config import RunConfig, read_config, save_config, to_dict
from curl_rl.runs.errors import UserError
from curl_rl.runs.yaml_file import read_yaml

BOMB = "a: &a [0, 0, 0, 0, 0, 0, 0, 0, 0, 0]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    save_config(RunConfig(), path)
    whole = path.read_bytes()
    assert read_config(path) == RunConfig()
    for length in [*range(0, len(whole), 499), *range(len(whole) - 9, len(whole))]:
        path.write_bytes(whole[:length])
        with pytest.raises(UserError):
            read_config(path)


def test_a_file_without_some_lines_is_refused_and_an_edited_value_is_not(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    save_config(RunConfig(), path)
    whole = path.read_text()
    path.write_text(whole.replace("  capacity: 100000\n", ""))
    with pytest.raises(UserError, match=r"config\.yaml is damaged: it holds \d+ of its \d+ settings"):
        read_config(path)
    path.write_text(whole.replace("  capacity: 100000\n", "  capacity: 5000\n"))
    assert read_config(path).replay.capacity == 5000


def test_a_file_of_an_earlier_version_has_no_count_and_is_read_if_all_sections_are_there(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    older = to_dict(RunConfig())
    del older["agent"]["update_rule"]  # a setting that did not exist yet
    path.write_text(yaml.safe_dump(older, sort_keys=False))
    assert read_config(path) == RunConfig()
    for content, lacks in ((path.read_text().split("compute:")[0], "it has no compute"),
                           (path.read_text()[:-1], "its last line is incomplete")):  # fmt: skip
        path.write_text(content)
        with pytest.raises(UserError, match=rf"config\.yaml is damaged: {lacks}"):
            read_config(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 20_000, "nested too deeply"),
        ("a: " * 9 + "1", "not valid YAML"),
        ("{a: " * 5_000, "nested too deeply"),
        (BOMB, "stands for more than 100,000 values"),
        ("a: &a [*a]", "stands for more than 100,000 values"),
        ("a: 2020-13-45", "not valid YAML"),
        ("a: " + "x" * 2**21, "has more than 1,048,576 bytes"),
        ("a: !!python/object/apply:os.mkdir [never]", "not valid YAML"),
    ],
    ids=["brackets", "colons", "braces", "billion laughs", "circle", "date", "large", "code"],
)
def test_what_only_an_attack_holds_is_one_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(content)
    for read in (read_yaml, read_config):
        with pytest.raises(UserError, match=message) as caught:
            read(path)
        assert "\n" not in str(caught.value)


def in_a_circle(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize("make", [os.mkfifo, in_a_circle, os.mkdir])
def test_a_pipe_a_circle_of_links_and_a_folder_are_one_line(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "config.yaml")
    with pytest.raises(UserError, match=r"config\.yaml"):
        read_yaml(tmp_path / "config.yaml")


def test_the_output_of_a_command_may_be_named() -> None:
    """As by ``--config <(...)``."""
    end, begin = os.pipe()
    writer = threading.Thread(target=lambda: (os.write(begin, b"seed: 5\n"), os.close(begin)))
    writer.start()
    assert read_yaml(f"/dev/fd/{end}") == {"seed": 5}
    writer.join()
    os.close(end)
