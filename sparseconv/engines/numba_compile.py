"""Compiled loops: without the GIL, cached on disk."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
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
            _drop_outdated(folder)
            self._dispatcher.compile(signature)


@functools.cache
def _drop_outdated(folder: Path) -> None:
    """Delete compiled code of other sources than these; with the lock.

    Numba looks at the file of a kernel alone, but the helpers that it calls are compiled into it.
    """
    sources = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("numba_*.py")):
        sources.update(path.read_bytes())
    stamp = folder / "sparseconv.sources"
    if stamp.exists() and stamp.read_text(encoding="ascii") == sources.hexdigest():
        return
    for path in folder.glob("numba_*.nb[ic]"):
        path.unlink()
    stamp.write_text(sources.hexdigest(), encoding="ascii")
