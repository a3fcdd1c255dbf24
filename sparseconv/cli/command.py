"""Which commands there are, and how errors are told."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from sparseconv.cli.completion import add_completion
from sparseconv.cli.convert import add_convert
from sparseconv.cli.info import add_info
from sparseconv.cli.label import add_label
from sparseconv.cli.look import add_view
from sparseconv.cli.machine import add_machine
from sparseconv.cli.train import add_train
from sparseconv.errors import SparseConvError
from sparseconv.inpaint.command import add_inpaint
from sparseconv.version import __version__

INTERRUPTED = 130  # what shells say of a program that was interrupted


def parser_of() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="sparseconv",
        description="Sparse convolution on point clouds and images.",
        epilog="example: sparseconv info scan.bin",
    )
    parser.add_argument("--version", action="version", version=f"sparseconv {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND")
    for add in (add_info, add_convert, add_view, add_label, add_train, add_inpaint, add_machine):
        add(commands)
    add_completion(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = parser_of()
    options = parser.parse_args(arguments)
    if "run" not in options:
        parser.print_help()
        return 0
    try:
        options.run(options)
    except (SparseConvError, OSError, MemoryError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        sys.stderr.write(f"sparseconv: {reason}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("sparseconv: interrupted\n")
        return INTERRUPTED
    return 0
