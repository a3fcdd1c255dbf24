"""Where a group of rows is measured: on which scene, with how many threads, how thoroughly."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import sparseconv as sc
from benchmarks.rows import Row
from benchmarks.timing import interleaved

SECONDS = 1.5


@dataclass(frozen=True)
class Setting:
    """What one call of a group measures.

    Attributes:
        scene, x: the scene's name and its sites.
        threads: PyTorch's number of threads, set by the caller.
        peers: whether to run the peers too.
        quick: one round on few cases, to see that all of it runs.
        clock: the processor's time instead of the clock's, on one thread, where others work too.
    """

    scene: str
    x: sc.SparseTensor
    threads: int
    peers: bool = True
    quick: bool = False
    clock: Callable[[], float] = time.perf_counter

    def measure(
        self, contenders: dict[str, Callable[[], object]], rounds: int = 5, seconds: float = SECONDS
    ) -> dict[str, float]:
        """Return the median milliseconds of each contender, all of them interleaved."""
        if self.quick:
            return interleaved(contenders, rounds=1, warm_up=0, clock=self.clock)
        return interleaved(contenders, rounds, clock=self.clock, seconds=seconds)

    def row(
        self,
        group: str,
        what: str,
        value: float,
        against: str,
        reference: float,
        bar: float | None = None,
        gflop: float = 0.0,
    ) -> Row:
        """Return a row of milliseconds on this scene."""
        place = (group, what, self.scene, self.threads)
        sites = self.x.num_sites
        return Row(*place, value, against, reference, bar, gflop=gflop, sites=sites)
