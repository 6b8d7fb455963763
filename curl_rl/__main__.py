"""``curl-rl COMMAND``, or ``python -m curl_rl COMMAND``: the commands, wherever the package is installed."""

from __future__ import annotations

import argparse
import ast
import contextlib
import difflib
import importlib
import io
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import curl_rl
from curl_rl.completion import SHELLS, Flags, flags_in
from curl_rl.runs.spelling import spell


class Command(NamedTuple):
    """A command of ``curl-rl``."""

    script: str
    """Its name in ``scripts/`` and ``curl_rl/commands/``."""
    plays: bool = False
    """Whether it needs environments."""

    @property
    def summary(self) -> str:
        """What its module's docstring begins with, up to a colon; read without importing the module."""
        path = Path(__file__).with_name("commands") / f"{self.script}.py"
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        return text.splitlines()[0].split(":")[0].rstrip(".")

    def run(self, argv: Sequence[str]) -> int:
        """Runs it with these arguments; returns the exit code."""
        module = importlib.import_module(f"curl_rl.commands.{self.script}")
        if not self.plays:
            return int(module.main(argv))
        environments = importlib.import_module("curl_rl.envs")
        unavailable = importlib.import_module("curl_rl.envs.rendering").RenderingUnavailable
        return int(module.main(argv, environments.make, unavailable))


COMMANDS = {
    "train": Command("train_agent", plays=True),
    "sweep": Command("sweep", plays=True),
    "evaluate": Command("evaluate_agent", plays=True),
    "record": Command("record_frames", plays=True),
    "export-policy": Command("export_policy"),
    "pretrain": Command("pretrain_vision"),
    "pretrain-text": Command("pretrain_text"),
    "evaluate-text": Command("evaluate_text"),
    "search-images": Command("search_images"),
    "prepare-data": Command("prepare_data"),
    "augment-text": Command("augment_text"),
    "evaluate-vision": Command("evaluate_vision"),
    "finetune": Command("finetune_vision"),
    "distill": Command("distill_vision"),
    "search-augmentation": Command("search_augmentation"),
    "train-detector": Command("train_detector"),
    "detect": Command("detect"),
    "export-encoder": Command("export_encoder"),
    "probe": Command("probe_encoder"),
    "plot": Command("plot_curves"),
    "report": Command("report", plays=True),
    "benchmark-table": Command("benchmark_table"),
    "collect": Command("collect_runs"),
    "train-sb3": Command("train_sb3", plays=True),
    "doctor": Command("doctor"),
    "install-dm-control": Command("install_dm_control"),
}
_COMPLETION = "completion"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that the arguments name, by default those of this process; returns the exit code."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items()]
    lines.append(f"  {_COMPLETION:{width}}  Print the completion script for a shell: {', '.join(SHELLS)}")
    closing = "curl-rl COMMAND --help explains each. A first try: curl-rl train --env tiny-reach --preset cpu"
    parser = argparse.ArgumentParser(
        prog="curl-rl",
        usage=argparse.SUPPRESS,
        description="Contrastive representations for reinforcement learning from pixels, and for images.",
        epilog="\n".join(["commands:", *lines, "", closing]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=curl_rl.__version__)
    parser.add_argument("command", metavar="COMMAND", help="one of those below, with its arguments")
    name, *arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    name = parser.parse_args([name]).command
    if name == _COMPLETION:
        shell = arguments[0] if len(arguments) == 1 else "nothing" if not arguments else shlex.join(arguments)
        if shell not in SHELLS:
            parser.error(f"the shell must be {', '.join(SHELLS)}, got {shell}: curl-rl completion bash")
        print(SHELLS[shell](_all_flags()), end="")
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, [*COMMANDS, _COMPLETION], n=1)
        parser.error(f"unknown command {name}" + (f"; did you mean {near[0]}?" if near else "; curl-rl lists them"))
    spell({command.script: spelled for spelled, command in COMMANDS.items()})
    sys.argv[0] = f"curl-rl {name}"  # the commands' messages begin with it
    return COMMANDS[name].run(arguments)


def _all_flags() -> dict[str, Flags]:
    """The flags of every command, read from what its ``--help`` prints."""
    found = {}
    for name, command in COMMANDS.items():
        text = io.StringIO()
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            command.run(["--help"])
        found[name] = flags_in(text.getvalue())
    return found


if __name__ == "__main__":
    raise SystemExit(main())
