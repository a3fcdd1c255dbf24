"""Rows of the CPU table: from starting Python to the first result, without and with a cache."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.apart import apart
from benchmarks.rows import Row
from benchmarks.setting import Setting

# seconds that a user may wait: without a cache for the first result, and where every kernel is
# compiled in the calling process, forwards and backwards; with a cache
FIRST, COLD, WARM = 5.0, 15.0, 2.0


def first_result(begin: float) -> dict[str, float]:
    """Voxelize points and run a small network, forwards and backwards; return the seconds taken.

    Args:
        begin: when the process was started, by ``time.time``.
    """
    import torch  # noqa: PLC0415  # importing is a part of what is measured

    imported = time.time()
    import sparseconv as sc  # noqa: PLC0415

    points = torch.rand(2000, 3) * torch.tensor([40.0, 40.0, 3.0])
    x, _ = sc.voxelize(points, 0.5)
    net = torch.nn.Sequential(
        sc.nn.SubmConv3d(x.channels, 16, 3),
        torch.nn.BatchNorm3d(16),
        torch.nn.ReLU(),
        torch.nn.Conv3d(16, 32, 2, stride=2),
        torch.nn.ReLU(),
        sc.nn.InverseConv3d(32, 8, 2, stride=2),
    )
    y = net(x)
    forward = time.time()
    y.features.sum().backward()
    return {
        "importing torch": imported - begin,
        "first forward": forward - imported,
        "first forward + backward": time.time() - imported,
    }


def start(setting: Setting) -> Iterator[Row]:
    """Yield the seconds to the first result, with an empty cache of compiled code and a full one.

    The bars are seconds from the moment that PyTorch is imported, which is shown apart. Without a
    cache a second process helps; where the engine is named, it does not.
    """
    if setting.quick:
        yield from _rows("cache", WARM, WARM, setting.threads)
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        first, second = ({"NUMBA_CACHE_DIR": str(Path(folder) / name)} for name in "ab")
        named = second | {"SPARSECONV_ENGINE": "numba"}
        yield from _rows("no cache", FIRST, COLD, setting.threads, **first)
        yield from _rows("no cache, engine named", COLD, COLD, setting.threads, **named)
        yield from _rows("cache", WARM, WARM, setting.threads, **second)


def _rows(state: str, bar: float, both: float, threads: int, **variables: str) -> Iterator[Row]:
    """Yield the rows of one process; ``both`` is the bar of forward and backward together."""
    taken = apart("benchmarks.cpu_start", "first_result", time.time(), **variables)
    for what, seconds in taken.items():
        row = ("start", f"{what}, {state}", "20 x 20 m", threads)
        least = both if what.endswith("backward") else bar
        limit = None if what.startswith("importing") else 1.0
        yield Row(*row, seconds, "bar", least, limit, "s")


GROUPS = (start,)
