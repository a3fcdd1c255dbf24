"""Rows of the CPU table: no more threads than asked for, whoever else is at work."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator

import torch

import sparseconv as sc
from benchmarks.cpu_layers import forward, with_channels
from benchmarks.rows import Row
from benchmarks.setting import Setting
from benchmarks.works import work_of

CHANNELS = 64
BAR = 1.2
Run = Callable[[], object]


def oversubscription(setting: Setting) -> Iterator[Row]:
    """Yield our layer and PyTorch's product in turns, and from two Python threads at once.

    In turns both pools are awake: one that spins while it waits would steal from the other, and
    the two together would take longer than each by itself. At once the work is the same, on as
    many cores, and twice the threads.
    """
    y = with_channels(setting.x, CHANNELS)
    layer = sc.nn.SubmConv3d(CHANNELS, CHANNELS, 3, bias=False)
    work_of(layer, y)
    ours = forward(layer, y)
    left, right = torch.randn(y.num_sites, 256), torch.randn(256, 256)
    out = torch.empty(y.num_sites, 256)
    times = 1 if setting.quick else 5

    def theirs() -> None:
        torch.mm(left, right, out=out)

    def repeated(run: Run) -> Run:
        def runs() -> None:
            for _ in range(times):
                run()

        return runs

    def in_turns() -> None:
        for _ in range(times):
            ours()
            theirs()

    def at_once() -> None:
        other = threading.Thread(target=repeated(theirs))
        other.start()
        repeated(ours)()
        other.join()

    contenders = {
        "ours": repeated(ours),
        "torch": repeated(theirs),
        "turns": in_turns,
        "once": at_once,
    }
    ms = setting.measure(contenders)
    both = ("each alone, summed", ms["ours"] + ms["torch"])
    name = f"submanifold 3x3x3, {CHANNELS} channels, and torch.mm"
    yield setting.row("threads", f"{name} in turns", ms["turns"], *both, BAR)
    # with one thread each, two loads find two cores
    cores = os.cpu_count() or 1
    share = min(setting.threads, cores) / min(2 * setting.threads, cores)
    reference = max(both[1] * share, ms["ours"], ms["torch"])
    yield setting.row("threads", f"{name} at once", ms["once"], both[0], reference, BAR)


GROUPS = (oversubscription,)
