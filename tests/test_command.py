"""``curl-rl``: its commands, how they are spelled in messages, and the completion for shells."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from curl_rl import __main__ as program
from curl_rl import completion
from curl_rl.runs import spelling

ROOT = Path(__file__).resolve().parent.parent


def test_every_command_of_the_package_is_one_of_curl_rl_and_has_a_script() -> None:
    modules = {path.stem for path in (ROOT / "curl_rl" / "commands").glob("*.py") if "def main(" in path.read_text()}
    assert {command.script for command in program.COMMANDS.values()} == modules
    scripts = {path.stem for path in (ROOT / "scripts").glob("*.py")}
    assert modules <= scripts


def test_commands_that_play_take_environments() -> None:
    for command in program.COMMANDS.values():
        text = (ROOT / "curl_rl" / "commands" / f"{command.script}.py").read_text()
        assert ("def main(argv: Sequence[str], make:" in text) == command.plays, command.script


@pytest.mark.parametrize("arguments", [[], ["--help"]], ids=["nothing", "help"])
def test_help_lists_every_command_without_importing_torch(arguments: list[str], tmp_path: Path) -> None:
    code = (
        f"import sys; from curl_rl.__main__ import main\n"
        f"try: main({arguments})\nexcept SystemExit as left: assert not left.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    for name, command in program.COMMANDS.items():
        assert f"  {name} " in answer.stdout
        assert command.summary in answer.stdout
        assert 10 < len(command.summary) <= 110


def test_texts_name_scripts_until_the_command_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spelling, "_commands", {})
    text = "python scripts/train_agent.py --env x, torchrun -- scripts/pretrain_vision.py, scripts/benchmark.py"
    assert spelling.in_this_spelling(text) == text
    spelling.spell({"train_agent": "train", "pretrain_vision": "pretrain"})
    wanted = "curl-rl train --env x, torchrun -m curl_rl pretrain, scripts/benchmark.py"
    assert spelling.in_this_spelling(text) == wanted


def test_flags_are_read_from_a_help_text() -> None:
    text = "\n".join(
        [
            "  -h, --help            Show this help message and exit.",
            "  --method {curl,simclr}",
            "  --objectives.n_pair.supervised {true,false}",
            "                        Take --labels from x",
            "  --data DATA           Folder",
        ]
    )
    expected = {"--help": [], "--method": ["curl", "simclr"], "--objectives.n_pair.supervised": ["true", "false"]}
    assert completion.flags_in(text) == expected | {"--data": []}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["pl"], "plot"),
        (["plot", "--o"], "--out"),
        (["plot", "--kind", "c"], "curves"),
        (["plot", "--kind", ""], "curves table"),
        (["train", "--o"], ""),
    ],
)
def test_bash_completes(words: list[str], expected: str) -> None:
    script = completion.SHELLS["bash"]({"plot": {"--out": [], "--kind": ["curves", "table"]}, "train": {"--env": []}})
    line = " ".join(f"'{word}'" for word in ("curl-rl", *words))
    ask = f'COMP_WORDS=({line}); COMP_CWORD={len(words)}; _curl_rl; echo "${{COMPREPLY[@]}}"'
    answer = subprocess.run(["bash", "-c", f"{script}\n{ask}"], check=True, capture_output=True, text=True)
    assert answer.stdout.strip() == expected
