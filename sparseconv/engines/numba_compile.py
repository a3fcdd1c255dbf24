"""Compiled loops: without the GIL, cached on disk, on torch's number of threads."""

from __future__ import annotations

import functools
import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from filelock import FileLock

KERNELS: list[Kernel] = []


class Kernel:
    """A function compiled by Numba the first time that it meets a combination of dtypes.

    Numba's cache on disk hands out file names by counting the variants that it finds, so two
    processes that compile at the same moment can overwrite each other's code. A lock beside the
    cache makes them take turns; a process that only loads waits for no longer than a load takes.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        # "contract" lets a product and a sum become one fused instruction and changes nothing else
        options = {"nogil": True, "fastmath": {"contract"}, "boundscheck": False}
        try:
            self._dispatcher = numba.njit(cache=True, **options)(function)
        except RuntimeError:  # no folder to write a cache to
            self._dispatcher = numba.njit(**options)(function)
        self._ready: set[tuple[Any, ...]] = set()
        KERNELS.append(self)

    def __call__(self, *args: Any) -> Any:
        """Run the compiled function."""
        key = tuple([entry.dtype if isinstance(entry, np.ndarray) else None for entry in args])
        if key not in self._ready:
            self._compile(args)
            self._ready.add(key)
        return self._dispatcher(*args)

    def compilations(self) -> int:
        """Return how many variants this process compiled, rather than loaded from disk."""
        return sum(self._dispatcher.stats.cache_misses.values())

    def _compile(self, args: tuple[Any, ...]) -> None:
        signature = tuple(numba.typeof(entry) for entry in args)
        folder = Path(self._dispatcher.stats.cache_path or "")
        if self._dispatcher.stats.cache_path is None:
            self._dispatcher.compile(signature)
            return
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "sparseconv.lock"):
            self._dispatcher.compile(signature)


class _Threads:
    """Helper threads beside the caller's own, made when first needed and anew after a fork."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._size = 0
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._pool, self._size = None, 0

    def submit(self, work: Callable[[], None], helpers: int) -> list[Future[None]]:
        with self._lock:
            if self._pool is None or self._size < helpers:
                self._pool = ThreadPoolExecutor(helpers, thread_name_prefix="sparseconv")
                self._size = helpers
            pool = self._pool
            return [pool.submit(work) for _ in range(helpers)]


_threads = _Threads()


def in_parallel(task: Callable[[int], Any], count: int) -> None:
    """Call ``task(0)`` to ``task(count - 1)``, in any order, on torch's number of threads.

    The calling thread works too, and takes over whatever no helper has begun, so that a busy pool
    (several Python threads at once) slows a call down and never blocks it.
    """
    helpers = min(torch.get_num_threads(), count) - 1
    if helpers < 1:
        for number in range(count):
            task(number)
        return
    numbers = itertools.count()

    def work() -> None:
        while (number := next(numbers)) < count:
            task(number)

    futures = _threads.submit(work, helpers)
    try:
        work()
    finally:
        waited = [future for future in futures if not future.cancel()]
    for future in waited:
        future.result()
