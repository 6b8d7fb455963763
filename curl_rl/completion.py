"""Completion of commands, flags and their choices in bash, zsh and fish."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

Flags = dict[str, list[str]]
"""The choices of a command's flags, by flag; a flag without a list of choices has none."""


def flags_in(text: str) -> Flags:
    """The flags that a text printed by ``--help`` describes, with the choices of those that have some."""
    found: Flags = {}
    for line in text.splitlines():
        if described := re.match(r"  (?:-\w, )?(--[\w.\-]+)(?:[ =]\{([^}]*)\})?", line):
            flag, choices = described.groups()
            found[flag] = choices.split(",") if choices else []
    return found


def _bash(commands: Mapping[str, Flags]) -> str:
    choices = [
        f'    "{name} {flag}") words="{" ".join(values)}" ;;'
        for name, flags in commands.items()
        for flag, values in flags.items()
        if values
    ]
    flags = [f'    {name}) words="{" ".join(flags)}" ;;' for name, flags in commands.items()]
    return "\n".join(
        [
            "_curl_rl() {",
            '  local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}" words=""',
            "  COMPREPLY=()",
            "  if [ $COMP_CWORD -eq 1 ]; then",
            f'    COMPREPLY=($(compgen -W "{" ".join(commands)}" -- "$word")); return',
            "  fi",
            '  case "${COMP_WORDS[1]} $before" in',
            *choices,
            "  esac",
            '  if [ -z "$words" ] && [[ "$word" == -* ]]; then',
            '    case "${COMP_WORDS[1]}" in',
            *(f"  {line}" for line in flags),
            "    esac",
            "  fi",
            '  [ -n "$words" ] && COMPREPLY=($(compgen -W "$words" -- "$word"))',
            "}",
            "complete -o default -F _curl_rl curl-rl",
            "",
        ]
    )


def _zsh(commands: Mapping[str, Flags]) -> str:
    # zsh runs bash's completion.
    return "#compdef curl-rl\nautoload -U +X bashcompinit && bashcompinit\n" + _bash(commands)


def _fish(commands: Mapping[str, Flags]) -> str:
    lines = [f"complete -c curl-rl -f -n __fish_use_subcommand -a '{' '.join(commands)}'"]
    for name, flags in commands.items():
        for flag, values in flags.items():
            chosen = f" -x -a '{' '.join(values)}'" if values else ""
            lines.append(f"complete -c curl-rl -n '__fish_seen_subcommand_from {name}' -l {flag[2:]}{chosen}")
    return "\n".join([*lines, ""])


SHELLS: dict[str, Callable[[Mapping[str, Flags]], str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
"""Writes the script for a shell from the flags of every command, by the command's name."""
