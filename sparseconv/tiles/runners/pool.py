"""Tiles in the processes of one machine."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace

from sparseconv.core.arguments import check_int
from sparseconv.errors import SparseConvError
from sparseconv.tiles.run import Task
from sparseconv.tiles.runners.here import Outcome


class Pool:
    """Tiles in processes of this machine, each with one thread and a model of its own.

    A process that dies takes nothing with it: the tiles that ran then are run again one at a time,
    and one that kills its process once more counts as broken.

    Args:
        workers: number of processes.
        threads: of PyTorch in each.
    """

    elsewhere = True

    def __init__(self, workers: int, threads: int = 1) -> None:
        self.workers = check_int("workers", workers, least=1)
        self.threads = check_int("threads", threads, least=1)

    def run(self, task: Task, numbers: Iterable[int]) -> Iterator[tuple[int, Outcome]]:
        """Yield each tile's outcome as soon as it is there."""
        task = replace(task, threads=self.threads)
        waiting, suspects = deque(numbers), deque[int]()
        while waiting or suspects:
            alone = bool(suspects)
            queue, workers = (suspects, 1) if alone else (waiting, self.workers)
            died: list[int] = []
            yield from self._until_one_dies(task, queue, workers, died)
            if alone and died:
                yield died.pop(), SparseConvError("its process died, twice")
            suspects.extend(died)

    def _until_one_dies(
        self, task: Task, queue: deque[int], workers: int, died: list[int]
    ) -> Iterator[tuple[int, Outcome]]:
        """Run tiles from ``queue`` until it is empty, or a process dies; note what ran then."""
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            running: dict[Future[Outcome], int] = {}
            while (queue and not died) or running:
                while queue and not died and len(running) < workers:
                    number = queue.popleft()
                    try:
                        running[pool.submit(task, number)] = number
                    except BrokenProcessPool:
                        queue.appendleft(number)
                        died.extend(running.values())
                        return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    number, error = running.pop(future), future.exception()
                    if isinstance(error, BrokenProcessPool):
                        died.append(number)
                    else:
                        yield number, future.result() if error is None else error
