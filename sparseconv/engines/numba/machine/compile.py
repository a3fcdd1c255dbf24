"""Compiled loops: without the GIL, cached on disk, on one thread or on all of them.

Benchmark: start first forward, cache
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numba
import numpy as np
from filelock import FileLock

from sparseconv.core.remember import collector_paused
from sparseconv.engines.numba.machine import cache
from sparseconv.engines.numba.machine.launch import launch
from sparseconv.engines.numba.machine.threads import on_all_threads

KERNELS: list[_Compiled] = []
# "contract" lets a product and a sum become one fused instruction and changes nothing else
_OPTIONS = {
    "nogil": True,
    "fastmath": {"contract"},
    "boundscheck": False,
    "no_cfunc_wrapper": True,
}


def _jit(function: Callable[..., Any], **options: Any) -> Any:
    """Return what Numba compiles a function to, kept on disk where there is room for it."""
    dispatcher = numba.njit(**_OPTIONS, **options)(function)
    if not numba.config.DISABLE_JIT and cache.folder() is not None:
        dispatcher._cache = cache.KernelCache(function)
    return dispatcher


class _Compiled:
    """A function that Numba compiles the first time that it meets a combination of dtypes."""

    def __init__(self, function: Callable[..., Any], **options: Any) -> None:
        functools.update_wrapper(cast(Any, self), function)
        self.name: str = function.__name__
        self._dispatcher = _jit(function, **options)
        KERNELS.append(self)

    def folder(self) -> Path | None:
        """Return where the compiled code is kept on disk, or None."""
        return cache.folder()

    def compilations(self) -> int:
        """Return how many variants this process compiled, rather than loaded from disk."""
        return _misses(self._dispatcher)


class Kernel(_Compiled):
    """A compiled function that is called as it stands, on the calling thread."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._ready: set[tuple[Any, ...]] = set()

    def __call__(self, *args: Any) -> Any:
        """Run the compiled function."""
        kinds = _kinds(args)
        if kinds not in self._ready:
            with _alone(self._dispatcher):
                self._dispatcher.compile(tuple(map(numba.typeof, args)))
            self._ready.add(kinds)
        return self._dispatcher(*args)


class ParallelKernel(_Compiled):
    """A compiled function that does a part of some work: of rows, tiles or whatever it counts.

    Its first two parameters are the first of them and the one behind the last. It returns nothing,
    and what it writes does not depend on how the work is shared out.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function, no_cpython_wrapper=True)  # only compiled code calls it
        self._ready: dict[tuple[Any, ...], Callable[..., int]] = {}

    def run(self, count: int, step: int, *args: Any) -> None:
        """Run the function for all of ``count``, ``step`` at a time, on all threads.

        Args:
            count, step: of what the function counts; the last part may be smaller.
            args: what the function takes behind its first two parameters.

        Raises:
            MemoryError: a part got no memory.
        """
        if count <= 0:
            return
        kinds = _kinds(args)
        begin = self._ready.get(kinds)
        if begin is None:
            begin = self._ready[kinds] = self._compiled(args)
        on_all_threads(begin, -(-count // step), count, step, args)

    def _compiled(self, args: tuple[Any, ...]) -> Callable[..., int]:
        """Return what calls the function for all parts: both are compiled for these arguments."""
        integer, kinds = numba.types.int64, tuple(map(numba.typeof, args))
        own, through = (
            (integer, integer, *kinds),
            (*(integer,) * 6, _unnamed(numba.types.Tuple(kinds))),
        )
        with _alone(self._dispatcher):
            self._dispatcher.compile(own)
        with _alone(_launch):
            _launch.compile(through)
        code = self._dispatcher.overloads[own]
        address = code.library.get_pointer_to_function(code.fndesc.llvm_func_name)
        # Numba need not look at the arguments again to know what was compiled for them
        entry = _launch.overloads[through].entry_point
        begin: Callable[..., int] = functools.partial(entry, address)
        return begin


def compilations() -> int:
    """Return how many variants of all functions this process compiled."""
    return sum(kernel.compilations() for kernel in KERNELS) + _misses(_launch)


def on_disk(kernels: Iterable[_Compiled]) -> bool:
    """Return whether each kernel was compiled by some process, for some arguments at least."""
    for kernel in kernels:
        folder = kernel.folder()
        if folder is None or not any(folder.glob(f"*.{kernel.name}-*.nbi")):
            return False
    return True


def _misses(dispatcher: Any) -> int:
    return int(sum(dispatcher.stats.cache_misses.values()))


def _kinds(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return what the arguments' Numba types depend on: of arrays the order in memory, too."""
    kinds: list[Any] = []
    entries = list(args)
    for entry in entries:  # grows by the entries of the groups in it
        kind = type(entry)
        kinds.append(kind)
        if kind is np.ndarray:
            kinds += entry.dtype, entry.ndim, entry.flags.num
        elif issubclass(kind, tuple):
            kinds.append(len(entry))
            entries += entry
    return tuple(kinds)


def _unnamed(kind: Any) -> Any:
    """Return the type of a tuple without names; it lies in memory as the named one does.

    The cache of :func:`launch` on disk is for all kernels, and a process that reads it may not know
    the names of another's tuples.
    """
    if isinstance(kind, numba.types.BaseTuple):
        return numba.types.Tuple([_unnamed(entry) for entry in kind])
    return kind


_launch = _jit(launch)


@contextmanager
def _alone(dispatcher: Any) -> Iterator[None]:
    """Let no other process compile the same function meanwhile.

    Numba's cache on disk hands out file names by counting the variants that it finds, so two
    processes that compile at the same moment can overwrite each other's code. A lock beside the
    cache makes them take turns; a process that only loads waits for no longer than a load takes.
    """
    with collector_paused():
        folder = cache.folder()
        if folder is None or not cache.writable(folder):
            yield
            return
        with FileLock(folder / f"{dispatcher.py_func.__name__}.lock"):
            yield
