"""``sparseconv completion``: what bash completes, from the commands themselves."""

from __future__ import annotations

import argparse
from typing import Any

from sparseconv.cli.terminal import say

SCRIPT = """\
_sparseconv() {{
    local words
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="{commands}"
    else
        case "${{COMP_WORDS[1]}}" in
{cases}
        esac
        case "$2" in -*) ;; *) words="" ;; esac
    fi
    COMPREPLY=( $(compgen -W "$words" -- "$2") )
}}
complete -o default -F _sparseconv sparseconv
"""


def add_completion(commands: Any) -> None:
    """Add the command to the parser's commands."""
    parser = commands.add_parser(
        "completion",
        help="print what makes bash complete these commands",
        description="Print a script for bash.",
        epilog='example: sparseconv completion >> ~/.bashrc, or: eval "$(sparseconv completion)"',
    )

    def run(_: argparse.Namespace) -> None:
        say(script(commands.choices))

    parser.set_defaults(run=run)


def script(parsers: dict[str, argparse.ArgumentParser]) -> str:
    """Return the script for commands and their options."""
    cases = []
    for name, parser in parsers.items():
        options = sorted(text for text in parser._option_string_actions if text.startswith("--"))
        cases.append(f'            {name}) words="{" ".join(options)}" ;;')
    return SCRIPT.format(commands=" ".join(parsers), cases="\n".join(cases))
