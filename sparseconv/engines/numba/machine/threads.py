"""The threads that PyTorch computes with, or where it has none that we know, our own.

PyTorch's functions run on the team of an OpenMP library, and its members spin for some milliseconds
after each, waiting for the next. Threads of our own would share the processor with them, and would
have to be woken up; the team's members are awake.

Benchmark: threads submanifold 3x3x3, 64 channels, and torch.mm in turns
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from sparseconv.engines.processors import look, quota

# what begins the work: by which address, on how many threads, and where several launches of the
# same work count the parts that are taken, or 0; then the work
Launch = Callable[..., int]


def on_all_threads(launch: Launch, parts: int, *work: Any) -> None:
    """Launch the parts of some work on torch's number of threads.

    The calling thread works too, and takes over whatever no other has begun, so that a busy team
    (several Python threads at once) slows a call down and never blocks it.

    Raises:
        MemoryError: a part got no memory.
    """
    threads = torch.get_num_threads()
    if threads > 1:
        look()
    members = min(threads, parts, quota() or parts)
    if members < 2:
        failed = launch(0, 1, 0, *work)
    elif _openmp.free():
        try:
            failed = launch(_openmp.begin, members, 0, *work)
        finally:
            _openmp.let_go()
    else:
        taken = np.zeros(1, np.int64)  # by all members together
        failed = _own.run(lambda: launch(0, 1, taken.ctypes.data, *work), members)
    if failed:
        raise MemoryError("a kernel got no memory for what it computes with")


class _OpenMP:
    """The team of PyTorch's OpenMP library, which takes one call at a time.

    Attributes:
        begin: the address of its function, or 0.
    """

    def __init__(self) -> None:
        self.begin, self._pause = _library()
        self._lock = threading.Lock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._dismiss, after_in_child=self._forget)

    def free(self) -> bool:
        """Return whether the team is here and without work; then it is taken until let go."""
        return self.begin != 0 and self._lock.acquire(blocking=False)

    def let_go(self) -> None:
        """Let others take the team."""
        self._lock.release()

    def _dismiss(self) -> None:
        """Let the members go before a fork, so that a new team comes in both processes.

        Else the library would wait for them in the new process, which has its notes of them and not
        its threads: for ever, in PyTorch's functions too.
        """
        if self._pause is not None:
            self._pause(_HARD)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        if self._pause is None:  # nobody could be let go
            self.begin = 0


class _Helpers:
    """Threads of our own beside the caller's, made when first needed and anew after a fork."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._size = 0
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def run(self, work: Callable[[], int], members: int) -> int:
        """Call ``work`` on so many threads at once; return the largest result."""
        futures = self._submit(work, members - 1)
        try:
            found = work()
        finally:
            waited = [future for future in futures if not future.cancel()]
        return max([found, *(future.result() for future in waited)])

    def _submit(self, work: Callable[[], int], helpers: int) -> list[Future[int]]:
        with self._lock:
            if self._pool is None or self._size < helpers:
                self._pool = ThreadPoolExecutor(helpers, thread_name_prefix="sparseconv")
                self._size = helpers
            pool = self._pool
            return [pool.submit(work) for _ in range(helpers)]

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._pool, self._size = None, 0


_HARD = 2  # omp_pause_hard: keep nothing


def _library() -> tuple[int, Callable[[int], int] | None]:
    """Return where ``GOMP_parallel`` of PyTorch's OpenMP library lies, and its way to end a team.

    ``GOMP_parallel(function, data, threads, flags)`` begins a parallel region of compiled programs,
    in GNU's library and, on Linux, in LLVM's and Intel's; 0 where there is none.
    ``omp_pause_resource_all`` may be missing.
    """
    try:
        library = ctypes.CDLL(torch._C.__file__)
        begin = ctypes.cast(library.GOMP_parallel, ctypes.c_void_p).value
    except (OSError, AttributeError):
        return 0, None
    return begin or 0, getattr(library, "omp_pause_resource_all", None)


_openmp = _OpenMP()
_own = _Helpers()
