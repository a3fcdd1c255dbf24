"""Rows of the CPU table: from starting Python to the first result, without and with a cache."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator

from benchmarks.apart import apart
from benchmarks.rows import Row
from benchmarks.setting import Setting

COLD, WARM = 15.0, 2.0


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

    The bars are seconds from the moment that PyTorch is imported, which is shown apart.
    """
    with tempfile.TemporaryDirectory() as folder:
        runs = {} if setting.quick else {"no cache": COLD}
        for state, bar in (runs | {"cache": WARM}).items():
            cache = {} if setting.quick else {"NUMBA_CACHE_DIR": folder}
            taken = apart("benchmarks.cpu_start", "first_result", time.time(), **cache)
            for what, seconds in taken.items():
                row = ("start", f"{what}, {state}", "20 x 20 m", setting.threads)
                limit = None if what.startswith("importing") else 1.0
                yield Row(*row, seconds, "bar", bar, limit, "s")


GROUPS = (start,)
