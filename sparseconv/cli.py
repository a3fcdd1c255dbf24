"""The ``sparseconv`` command, thin over the library's own functions."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

import torch

from sparseconv import engines
from sparseconv.errors import SparseConvError
from sparseconv.inpaint.command import add_inpaint
from sparseconv.tools import warm_up
from sparseconv.version import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="sparseconv", description="Sparse convolution on point clouds and images."
    )
    parser.add_argument("--version", action="version", version=f"sparseconv {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND")
    warmup = commands.add_parser(
        "warmup", help="compile the CPU kernels now, so that later processes start quickly"
    )
    warmup.set_defaults(run=_warm_up)
    about = commands.add_parser("engines", help="list the engines and what each can run here")
    about.set_defaults(run=_engines)
    add_inpaint(commands)
    options = parser.parse_args(arguments)
    if "run" not in options:
        parser.print_help()
        return 0
    try:
        options.run(options)
    except (SparseConvError, OSError) as error:
        sys.stderr.write(f"sparseconv: {error}\n")
        return 1
    return 0


def _warm_up(_: argparse.Namespace) -> None:
    start = time.perf_counter()
    for step in warm_up():
        sys.stdout.write(f"{time.perf_counter() - start:6.1f} s  {step}\n")
        sys.stdout.flush()


def _engines(_: argparse.Namespace) -> None:
    devices = ["cpu"] + ["cuda"] * torch.cuda.is_available()
    for device in devices:
        for name, reason in engines.explain(torch.zeros(1, device=device)).items():
            sys.stdout.write(f"{device:5} {name:6} {reason}\n")
