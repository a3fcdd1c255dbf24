"""Tasks on the threads that PyTorch computes with, or where it has none that we know, on our own.

PyTorch's functions run on the team of an OpenMP library, and its members spin for some milliseconds
after each, waiting for the next. Threads of our own would share the processor with them, and would
have to be woken up; the team's members are awake.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

Work = Callable[[], None]


def in_parallel(task: Callable[[int], Any], count: int) -> None:
    """Call ``task(0)`` to ``task(count - 1)``, in any order, on torch's number of threads.

    The calling thread works too, and takes over whatever no other has begun, so that a busy team
    (several Python threads at once) slows a call down and never blocks it.
    """
    members = min(torch.get_num_threads(), count)
    numbers = itertools.count()

    def work() -> None:
        while (number := next(numbers)) < count:
            task(number)

    if members < 2:
        work()
    elif _openmp.free():
        _openmp.run(work, members)
    else:
        _own.run(work, members)


class _OpenMP:
    """The team of PyTorch's OpenMP library, which takes one call at a time."""

    def __init__(self) -> None:
        self._begin, self._pause = _library()
        self._lock = threading.Lock()
        self._work: Work = _nothing
        self._raised: list[BaseException] = []
        self._entry = _ENTRY(self._enter)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._dismiss, after_in_child=self._forget)

    def free(self) -> bool:
        """Return whether the team is here and without work; it is taken then, and must be run."""
        return self._begin is not None and self._lock.acquire(blocking=False)

    def run(self, work: Work, members: int) -> None:
        """Call ``work`` on so many threads at once; raise what one of them raised."""
        assert self._begin is not None
        self._work, raised = work, self._raised
        try:
            self._begin(self._entry, None, members, 0)
        finally:
            self._work, self._raised = _nothing, []
            self._lock.release()
        if raised:
            raise raised[0]

    def _enter(self, _: Any) -> None:
        try:
            self._work()
        except BaseException as error:  # C has no exceptions; run() raises it
            self._raised.append(error)

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
            self._begin = None


class _Helpers:
    """Threads of our own beside the caller's, made when first needed and anew after a fork."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._size = 0
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def run(self, work: Work, members: int) -> None:
        """Call ``work`` on so many threads at once."""
        futures = self._submit(work, members - 1)
        try:
            work()
        finally:
            waited = [future for future in futures if not future.cancel()]
        for future in waited:
            future.result()

    def _submit(self, work: Work, helpers: int) -> list[Future[None]]:
        with self._lock:
            if self._pool is None or self._size < helpers:
                self._pool = ThreadPoolExecutor(helpers, thread_name_prefix="sparseconv")
                self._size = helpers
            pool = self._pool
            return [pool.submit(work) for _ in range(helpers)]

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._pool, self._size = None, 0


_ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_HARD = 2  # omp_pause_hard: keep nothing


def _library() -> tuple[Callable[..., None] | None, Callable[[int], int] | None]:
    """Return ``GOMP_parallel`` and ``omp_pause_resource_all`` of PyTorch's OpenMP library, or None.

    ``GOMP_parallel(function, data, threads, flags)`` begins a parallel region of compiled programs,
    in GNU's library and, on Linux, in LLVM's and Intel's. The other ends a thread's team.
    """
    try:
        library = ctypes.CDLL(torch._C.__file__)
        begin = library.GOMP_parallel
    except (OSError, AttributeError):
        return None, None
    begin.argtypes = (_ENTRY, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    begin.restype = None
    return begin, getattr(library, "omp_pause_resource_all", None)


def _nothing() -> None:
    """Do nothing: the work of a team without work."""


_openmp = _OpenMP()
_own = _Helpers()
