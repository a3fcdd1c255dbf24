"""The first calls of an installation: sites and rulebooks do not wait for their kernels.

Keys, rows and pairs are integers, so the plain engine gives the same bits. It answers while a
second process compiles these kernels; the calling one compiles those of products and sums. Where
the caller names the engine (``SPARSECONV_ENGINE=numba``, ``with sc.engine("numba")``), all of them
are compiled where they are called.

Benchmark: start first forward, no cache
"""

from __future__ import annotations

import atexit
import functools
import logging
import os
import subprocess
import sys
from collections.abc import Callable

import torch

from sparseconv import engines
from sparseconv.core.geometry import Geometry, Kind
from sparseconv.core.index import Index, Packing
from sparseconv.core.private_torch import Arguments, Result
from sparseconv.engines.numba.keys import index, kernels, reach, sort
from sparseconv.engines.numba.machine.compile import on_disk
from sparseconv.engines.numba.rows.host import affine_rows
from sparseconv.engines.numba.rulebooks import build, merge
from sparseconv.engines.processors import usable
from sparseconv.engines.torch import keys as plain
from sparseconv.engines.torch import maps

KERNELS = (
    *(kernels.extremes, kernels.pack, kernels.ascends, kernels.strictly_ascends),
    *(kernels.number, kernels.split, kernels.fill_table, kernels.probe_table, kernels.project),
    *(reach.take_axis, reach.split_axis, reach.merge_axis, sort.passes),
    *(merge.merge_runs, merge.merge_cells, merge.collect),
)
PROGRAM = "from sparseconv.engines.numba.first_calls import compile_all; compile_all()"


def compile_all() -> None:
    """Compile ``KERNELS`` by calling each of them, and first what a network needs last."""
    row = torch.ones(1, 16)
    affine_rows([(row, row)], row, None)  # of batch normalisation
    side, ones, zeros = torch.arange(17), (1, 1, 1), (0, 0, 0)  # more sites than a short sort takes
    same = Geometry((3, 3, 3), ones, ones, ones, ones, zeros, Kind.SUBMANIFOLD)
    half = Geometry((2, 2, 2), (2, 2, 2), zeros, zeros, ones, zeros, Kind.REGULAR)
    for dtype in (torch.int64, torch.int32):
        coords = torch.cartesian_prod(torch.zeros(1, dtype=torch.long), side, side, side).flip(0)
        packing = Packing.around(*index.bounds(coords.to(dtype)), 2**62)
        sites = index.build_index(coords.to(dtype), packing)
    index.lookup(sites, sites.keys)
    index.ascends(sites.keys)
    coarse = Index(index.reached_keys(sites, half, packing), None, packing)
    build.build_rulebook(sites, sites, same)
    build.build_rulebook(sites, coarse, half)


def _meanwhile(
    stand_in: Callable[Arguments, Result], function: Callable[Arguments, Result]
) -> Callable[Arguments, Result]:
    """Return the function, or what asks the plain engine's until the kernels are compiled."""
    if on_disk(KERNELS):
        return function

    @functools.wraps(function)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        answering = stand_in if _compiled_elsewhere() else function
        return answering(*args, **kwargs)

    return run


def _compiled_elsewhere() -> bool:
    """Return whether the second process is at work."""
    if engines.asked_for() is not None:
        return False
    process = _second_process()
    return process is not None and process.poll() is None


@functools.cache
def _second_process() -> subprocess.Popen[bytes] | None:
    """Start the process that compiles ``KERNELS``; None where it has no processor or no cache."""
    if not (sys.executable and usable() > 1 and KERNELS[0].folder()):
        return None
    logging.getLogger("sparseconv").warning(
        "sparseconv compiles its CPU kernels, once per installation: some seconds in this process "
        "and in a second one (`sparseconv warmup` compiles all of them ahead)"
    )
    paths = os.pathsep.join(filter(None, sys.path))
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": paths, "SPARSECONV_ENGINE": "numba"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    # it may outlive this process, and Python would warn of that
    atexit.register(setattr, process, "returncode", 0)
    return process


ascends = _meanwhile(plain.ascends, index.ascends)
bounds = _meanwhile(plain.bounds, index.bounds)
build_index = _meanwhile(plain.build_index, index.build_index)
build_rulebook = _meanwhile(maps.build_rulebook, build.build_rulebook)
lookup = _meanwhile(plain.lookup, index.lookup)
reached_keys = _meanwhile(maps.reached_keys, index.reached_keys)
