"""``sparseconv warmup`` and ``sparseconv engines``: this computer."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch

from sparseconv import engines
from sparseconv.cli.terminal import say, size, table
from sparseconv.engines import memory, processors
from sparseconv.tools import warm_up
from sparseconv.version import __version__

LIBRARIES = ("torch", "numpy", "numba", "llvmlite", "laspy", "lazrs", "open3d-cpu", "scipy")


def add_machine(commands: Any) -> None:
    """Add the commands to the parser's commands."""
    warmup = commands.add_parser(
        "warmup",
        help="compile the CPU kernels now, so that later processes start quickly",
        description="Compile the CPU kernels and keep them on disk.",
        epilog="example: sparseconv warmup --to /opt/kernels",
    )
    warmup.add_argument(
        "--to",
        metavar="DIR",
        help="keep them in this folder, for an image or for machines of the same kind",
    )
    warmup.set_defaults(run=_warm_up)
    about = commands.add_parser(
        "engines",
        help="which engine is used here, threads, vector width, cache, versions",
        description="Say which engine runs on each device, and what it has to work with.",
        epilog="example: sparseconv engines",
    )
    about.set_defaults(run=_engines)


def _warm_up(options: argparse.Namespace) -> None:
    start = time.perf_counter()
    if options.to:
        folder = Path(options.to).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["NUMBA_CACHE_DIR"] = str(folder)  # Numba reads it when it is loaded, below
    for step in warm_up():
        say(f"{time.perf_counter() - start:6.1f} s  {step}")
    if options.to:
        say(f"set NUMBA_CACHE_DIR={folder} where they are to be used")


def _engines(_: argparse.Namespace) -> None:
    cache = importlib.import_module("sparseconv.engines.numba.machine.cache")  # Numba takes time
    devices = ["cpu"] + ["cuda"] * torch.cuda.is_available()
    rows = []
    for device in devices:
        probe = torch.zeros(1, device=device)
        for name, reason in engines.explain(probe).items():
            used = "used" if name == engines.chosen(probe) else ""
            rows.append((device, name, used, reason))
    table("engines", ("device", "engine", "", "why"), rows)
    installed = []
    for name in LIBRARIES:
        try:
            installed.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    facts = [
        ("threads", f"{torch.get_num_threads()} on {processors.usable()} processors{_quota()}"),
        ("threads wait", _waiting()),
        ("vectors", torch.backends.cpu.get_cpu_capability()),
        ("kernels", f"kept in {cache.folder() or 'no folder: each process compiles them'}"),
        ("memory pool", f"{size(memory.held())} held"),
        ("versions", f"sparseconv {__version__}, Python {platform.python_version()}"),
        ("", ", ".join(installed)),
    ]
    table("this computer", ("", "."), facts)


def _waiting() -> str:
    """Say how threads wait for each other, which counts where other programs run, too."""
    if not processors.wait_busily():
        return "asleep"
    return "busy: on processors that others use, set OMP_WAIT_POLICY=PASSIVE, one thread a worker"


def _quota() -> str:
    """Say what the machine has beside what a control group allows."""
    return "" if processors.quota() is None else f", the control group's; {os.cpu_count()} are here"
